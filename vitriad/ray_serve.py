"""The server as a deployment of Ray Serve: `serve run vitriad.ray_serve:app models="digits-vit"`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers about this machine

from ray import serve

from vit_core.errors import InputError
from vitriad.serve import arguments_of, create_app

_ARGUMENTS = {"models": "", "min_replicas": 1, "max_replicas": 4, "cpus": 1, "gpus": 0}
_DRAIN = 30  # seconds that a replica has for what it is at, as `vitriad serve` has them


def app(given: Mapping[str, Any]) -> Any:
    """An application for `serve run`, `serve deploy` and `serve.run`.

    Requests are put together in every replica, by the batches of `vitriad serve`. A replica takes twice as many at a
    time as a batch has; there are as many replicas as keep each at half a batch. What dies is started again.

    Args:
        given: `models`: what stands behind `vitriad serve`. `min_replicas` and `max_replicas` (1, 4), `cpus` and `gpus`
            of each (1, 0).

    Raises:
        InputError: an argument that is not known, or no models.
    """
    if wrong := [name for name in given if name not in _ARGUMENTS]:
        raise InputError(f"ray_serve: expected some of {', '.join(_ARGUMENTS)}, got {wrong[0]!r}.")
    settled = {**_ARGUMENTS, **given}
    line = str(settled["models"])
    rows = arguments_of(line).batch_size  # a wrong line ends here, and not in the replicas
    deployment = serve.deployment(
        serve.ingress(_builder(line))(),
        name="vitriad",
        max_ongoing_requests=2 * rows,
        max_queued_requests=8 * rows,
        autoscaling_config={
            "min_replicas": int(settled["min_replicas"]),
            "max_replicas": int(settled["max_replicas"]),
            "target_ongoing_requests": max(1, rows // 2),
        },
        ray_actor_options={"num_cpus": float(settled["cpus"]), "num_gpus": float(settled["gpus"])},
        graceful_shutdown_timeout_s=_DRAIN,
    )
    return deployment.bind()


def _builder(line: str) -> Callable[[], Any]:
    """What every replica calls for its application."""

    def build() -> Any:
        return create_app(line)

    return build
