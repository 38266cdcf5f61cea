"""Web applications of vitriad, served in a thread of this process, and what asks them."""

import http.client
import threading
import time
from contextlib import closing, contextmanager

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


def ask(port, path="/", body=None, method=None, **headers):
    """Status, headers and content of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def wait_for(is_so, seconds=60):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
