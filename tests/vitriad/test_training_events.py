"""Events for TensorBoard: what is written, by tag and step; a stand-in takes them, for nobody needs it installed."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from vitriad.training import events as training_events
from vitriad.training.events import Events

LINES = [
    {"step": 1, "loss": 2.0, "rate": 0.1, "gradient_norm": 3.0, "images": 4},
    {"step": 1, "epoch": 1, "train_loss": 2.0, "held_out_loss": 1.5, "accuracy": 0.25, "held_out": 4},
]


@pytest.fixture
def written(monkeypatch):
    """What the stand-in was given: (folder, events), and how often it was flushed and closed."""
    found = SimpleNamespace(folders=[], events=[], flushed=0, closed=0)

    class Writer:
        def __init__(self, folder):
            found.folders.append(folder)

        def add_event(self, event):
            found.events.append(event)

        def flush(self):
            found.flushed += 1

        def close(self):
            found.closed += 1

    class SessionLog(SimpleNamespace):
        START = 1

    class Summary(SimpleNamespace):
        Value = SimpleNamespace

    modules = {
        "tensorboard.compat.proto.event_pb2": {"Event": SimpleNamespace, "SessionLog": SessionLog},
        "tensorboard.compat.proto.summary_pb2": {"Summary": Summary},
        "tensorboard.summary.writer.event_file_writer": {"EventFileWriter": Writer},
    }
    for name, values in modules.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(training_events, "find_spec", lambda name: name)
    return found


def test_what_is_measured_becomes_events_by_tag_and_step(written, tmp_path):
    events = Events(tmp_path, 0)
    for line in LINES:
        events.add(line)
    events.close()
    assert written.folders == [str(tmp_path / "tensorboard")]
    values = [(event.step, each.tag, each.simple_value) for event in written.events for each in event.summary.value]
    assert values == [
        (1, "training/loss", 2.0),
        (1, "training/rate", 0.1),
        (1, "training/gradient norm", 3.0),
        (1, "held out/loss", 1.5),
        (1, "held out/accuracy", 0.25),
    ]
    assert (written.flushed, written.closed) == (1, 1)


def test_a_run_that_goes_on_takes_back_what_came_after(written, tmp_path):
    Events(tmp_path, 7).close()
    assert [(event.step, event.session_log.status) for event in written.events] == [(8, 1)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(training_events, "find_spec", lambda name: None)
    events = Events(tmp_path, 3)
    for line in LINES:
        events.add(line)
    events.close()
    assert not [*tmp_path.iterdir()]
