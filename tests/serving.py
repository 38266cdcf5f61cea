"""Web applications of vitriad, served in a thread of this process or in one of their own, and what asks them."""

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

from backends import INSTALLED

from vitriad.web import listen, server

PROMPT = r"http://127\.0\.0\.1:(\d+)/\n"


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


def command_line(verb, *words, port=0):
    return [sys.executable, "-m", "vitriad", verb, *words, "--backend", INSTALLED[0], "--port", str(port)]


@contextmanager
def started(verb, *words, port=0, prompt=PROMPT):
    """`vitriad play` or `vitriad serve` in a process of its own: that process, and its port."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command_line(verb, *words, port=port), **streams) as process:
        try:
            yield process, int(re.fullmatch(prompt, process.stdout.readline())[1])
        finally:
            process.kill()


def begun(port, path, length, content=b""):
    """A connection with a request whose content is not all sent yet."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


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
