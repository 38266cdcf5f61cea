"""`vitriad serve`: models as an HTTP service, for people, programs and clusters."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL.Image import DecompressionBombWarning

from vit_core.errors import BackendError, InputError
from vit_core.installing import install_command
from vit_core.plain_values import short
from vitriad.option_groups import running_options
from vitriad.options import make_parser

if TYPE_CHECKING:
    from vitriad.serving.observing import Figures
    from vitriad.serving.service import ServeLimits, Service

OPTIONS = "VITRIAD_SERVE"  # the environment variable with the command line of `create_app`
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(arguments: Namespace) -> int:
    """Listens, loads the models, serves them until Ctrl-C or SIGTERM, and finishes what was begun.

    On SIGHUP the models are loaded anew.
    """
    _check_installed()
    from vitriad.serving.app import application  # what only this extra brings
    from vitriad.serving.keys import read_keys
    from vitriad.serving.loading import Loading, meanwhile
    from vitriad.serving.observing import Figures
    from vitriad.web import bind, serve, server

    keys, tls, limits, figures = read_keys(arguments.key_file), _tls(arguments), _limits(arguments), Figures()
    host, wanted = _address(arguments)
    names = _names(arguments, host)
    with warnings.catch_warnings(), bind(host, wanted) as bound, _logged(arguments.quiet):  # before the models
        warnings.simplefilter("ignore", DecompressionBombWarning)  # our own limit is lower, and an error
        port = bound.getsockname()[1]
        address = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
        _say_beyond(host, keys)

        def make() -> Any:
            return application(_service(arguments, limits, figures), port=port, keys=keys, names=names)

        def ready() -> None:
            print(address, flush=True)
            print("vitriad: Ctrl-C ends it, SIGHUP loads the models anew", file=sys.stderr)

        def fail() -> None:
            running.should_exit = True

        loading = Loading(make, meanwhile(figures, port, names, limits.web), ready, fail)
        running = server(loading, limits.web, **tls)
        bound.listen()
        print(f"vitriad: {address}live answers; the models are being loaded", file=sys.stderr)
        loading.begin()
        serve(running, bound, loading.again)
    if loading.problem:
        raise loading.problem
    loading.end()
    return 0


def create_app(line: str | None = None) -> Any:
    """The application for a server of yours: `VITRIAD_SERVE="digits-vit" uvicorn --factory vitriad.serve:create_app`.

    Where to listen, TLS, and how slow and how many connections may be are then that server's to say.

    Args:
        line: what stands behind `vitriad serve`; None for what the environment variable holds.
    """
    _check_installed()
    from vitriad.serving.app import application
    from vitriad.serving.keys import read_keys
    from vitriad.serving.observing import Figures

    arguments = arguments_of(os.environ.get(OPTIONS, "") if line is None else line)
    warnings.simplefilter("ignore", DecompressionBombWarning)
    _log_requests(arguments.quiet)
    names = _names(arguments, arguments.host or _LOOPBACK[0])
    service = _service(arguments, _limits(arguments), Figures())
    return application(service, keys=read_keys(arguments.key_file), names=names)


def arguments_of(line: str) -> Namespace:
    """What stands behind `vitriad serve`, as a text."""
    return make_parser().parse_args(["serve", *shlex.split(line)])


def _check_installed() -> None:
    if missing := [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]:
        raise BackendError(f"serve: needs {' and '.join(missing)}.\nInstall it with: {install_command('serve')}")


def _limits(arguments: Namespace) -> ServeLimits:
    """The bounds of the server."""
    from vitriad.serving.batching import BatchLimits
    from vitriad.serving.service import ServeLimits

    rows = arguments.batch_size
    waiting = arguments.queue or 4 * rows
    if waiting < rows:
        raise InputError(f"--queue {waiting}: a batch of {rows} images does not fit in.")
    batch = BatchLimits(rows, arguments.batch_delay / 1000, waiting)
    return ServeLimits(batch=batch, deadline_seconds=arguments.deadline)


def _service(arguments: Namespace, limits: ServeLimits, figures: Figures) -> Service:
    """The models, loaded and warm, and their queues."""
    from vitriad.serving.batching import sizes_up_to
    from vitriad.serving.served import TASKS, open_served
    from vitriad.serving.service import Service

    rows = limits.batch.rows
    models: list[Any] = []
    for given in arguments.models:
        options = {**running_options(arguments), "any_size": arguments.any_size, "tasks": arguments.tasks or TASKS}
        served = open_served(given, arguments.backend, arguments.processor, **options)
        if any((each.name, each.version) == (served.name, served.version) for each in models):
            raise InputError(f"serve: two models are {served.name} version {served.version}.\nName one: NAME@2=MODEL.")
        served.warm_up(sizes_up_to(rows) if served.compiles else (1, rows))
        does = ", ".join(served.tasks)
        told = f"{served.name} version {served.version}: {does}; {served.engine}; up to {rows} images at a time"
        print(f"vitriad: {told}", file=sys.stderr)
        models.append(served)
    return Service(models, limits, figures)


def _tls(arguments: Namespace) -> dict[str, Any]:
    """What uvicorn takes for TLS."""
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise InputError("serve: TLS needs both --tls-cert and --tls-key.")
    return {"ssl_certfile": arguments.tls_cert, "ssl_keyfile": arguments.tls_key} if arguments.tls_cert else {}


def _address(arguments: Namespace) -> tuple[str, int]:
    """Where to listen: as Vertex AI says it in the environment of a container, unless something is given."""
    told = os.environ.get("AIP_HTTP_PORT", "")
    if told and not told.isdecimal():
        raise InputError(f"AIP_HTTP_PORT: expected the number of a port, got {short(told)}.")
    host = arguments.host or ("0.0.0.0" if told else _LOOPBACK[0])
    return host, int(told or 8000) if arguments.port is None else arguments.port


def _names(arguments: Namespace, host: str) -> list[str] | None:
    """The hosts that requests may name: beyond this machine every one, unless some are given."""
    given = [name.lower() for name in arguments.allow_host]
    return given if given or host in _LOOPBACK else None


def _say_beyond(host: str, keys: list[str]) -> None:
    if host not in _LOOPBACK and not keys:
        text = "whoever reaches it may use the models. --key-file asks for a key."
        print(f"vitriad: warning: {host} is not this machine alone, and no key is asked for: {text}", file=sys.stderr)


@contextmanager
def _logged(is_quiet: bool) -> Iterator[None]:
    """Logs requests within."""
    _log_requests(is_quiet)
    try:
        yield
    finally:
        logging.getLogger("vitriad.requests").handlers = []


def _log_requests(is_quiet: bool) -> None:
    """One line of JSON on stderr for each request."""
    if is_quiet:
        return
    logger = logging.getLogger("vitriad.requests")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
