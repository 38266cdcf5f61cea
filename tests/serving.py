"""A web application of vitriad, served in a thread of this process."""

import threading
from contextlib import contextmanager

from vitriad.web import listen, server


@contextmanager
def serving(make, limits):
    """The port of a server for the application that `make` gives for a port."""
    with listen(0) as listening:
        port = listening.getsockname()[1]
        running = server(make(port), limits)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield port
        finally:
            running.should_exit = True
            thread.join()
