"""`vitriad play`: a page in the browser to try models on images, served to this machine alone."""

from __future__ import annotations

import sys
import warnings
import webbrowser
from argparse import Namespace
from importlib.util import find_spec

from PIL.Image import DecompressionBombWarning

from vit_core.errors import BackendError
from vit_core.installing import install_command
from vitriad.option_groups import running_options


def run(arguments: Namespace) -> int:
    """Loads the models and serves the page until Ctrl-C or SIGTERM; prints its address once it can be opened."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise BackendError(f"play: needs {' and '.join(missing)}.\nInstall it with: {install_command('play')}")
    from vitriad.playing.app import application  # what only this extra brings
    from vitriad.playing.players import open_player
    from vitriad.web import ADDRESS, WebLimits, listen, serve, server

    limits = WebLimits()
    with warnings.catch_warnings(), listen(arguments.port) as listening:  # before the models, which take longer
        warnings.simplefilter("ignore", DecompressionBombWarning)  # our own limit is lower, and an error
        options = running_options(arguments)
        players = [open_player(name, arguments.backend, arguments.processor, **options) for name in arguments.models]
        port = listening.getsockname()[1]
        address = f"http://{ADDRESS}:{port}/"
        print(address, flush=True)
        print("vitriad: Ctrl-C ends it", file=sys.stderr)
        if arguments.open:
            webbrowser.open(address)
        serve(server(application(players, port, limits), limits), listening)
    return 0
