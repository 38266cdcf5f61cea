"""What a run measures as events that TensorBoard shows, where it is installed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
_TAGS = {  # of metrics.jsonl -> of TensorBoard
    **{"loss": "training/loss", "rate": "training/rate", "gradient_norm": "training/gradient norm"},
    **{"held_out_loss": "held out/loss", "accuracy": "held out/accuracy"},
}


class Events:
    """The events of a run; nothing where TensorBoard is not installed.

    Args:
        folder: of the run.
        done: steps that are done: what older events say of later ones is no longer true.
        writes: whether this process is the one that writes.
    """

    def __init__(self, folder: Path, done: int, *, writes: bool = True) -> None:
        self._writer: Any = None
        if not writes or find_spec("tensorboard") is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder / FOLDER))
        if done:
            log = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(step=done + 1, wall_time=time.time(), session_log=log))

    def close(self) -> None:
        """Writes out what is not written yet."""
        if self._writer is not None:
            self._writer.close()

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds a line of the metrics."""
        if self._writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=line[name]) for name, tag in _TAGS.items() if name in line]
        self._writer.add_event(Event(step=line["step"], wall_time=time.time(), summary=Summary(value=values)))
        if "epoch" in line:
            self._writer.flush()
