"""A hub on this machine: the routes that huggingface_hub calls, a log of what was asked, and faults on demand.

with Hub() as hub:
    hub.commit("owner/name", {"config.json": b"{}"})
    hub.faults["GET", "config.json"] = [failing(500)]      # the first answer; then it is well again
    ...                                                    # a client with endpoint=hub.url
    hub.log                                                # [Request("HEAD", "/owner/name/resolve/main/..."), ...]
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What is sent back; a body longer or shorter than its Content-Length is sent as it is, then the line is cut."""

    status: int
    headers: dict[str, str]
    body: bytes | Iterator[bytes] = b""


class Hub(ThreadingHTTPServer):
    """Repositories with commits and branches, kept in memory.

    Attributes:
        commits: (repository, commit) -> its files.
        branches: (repository, branch) -> commit.
        faults: (method, end of the path) -> changes of its next answers, one each.
        is_private: repositories exist only for requests with TOKEN.
        storage: another server, which large files are fetched from; None for this one.
        stored: the large files that this server holds for another one, by SHA-256.
    """

    TOKEN = "hf_a_secret_of_the_tests"
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits, self.branches, self.faults, self.log = {}, {}, {}, []
        self.is_private, self.storage, self.stored = False, None, {}

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def commit(self, repository, files, branch="main"):
        """A new commit with exactly these files (path -> bytes) at the tip of a branch; returns its name."""
        content = repr((self.branches.get((repository, branch)), sorted(files.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[repository, commit], self.branches[repository, branch] = dict(files), commit
        return commit

    def files(self, repository, branch="main"):
        return self.commits[repository, self.branches[repository, branch]]

    def asked(self, method=None):
        """(method, path) of every request so far, with file paths cut to the name inside the repository."""
        asked = [(r.method, unquote(r.path).split("/resolve/")[-1].split("/", 1)[-1]) for r in self.log]
        return [(m, path) for m, path in asked if method in (None, m)]

    def answer(self, request):
        """The answer to one request, changed by the fault that is due, if any."""
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/")[1:]]
        path = "/".join(parts)
        due = [
            changes for (method, end), changes in self.faults.items() if request.method == method and path.endswith(end)
        ]
        change = next((changes.pop(0) for changes in due if changes), None)
        if change and request.method == "POST":
            return change(None)  # nothing is done
        answer = self._refusal(path, request) or self._route(parts, request)
        return change(answer) if change else answer

    def _refusal(self, path, request):
        is_allowed = request.headers.get("authorization") == f"Bearer {self.TOKEN}"
        if self.is_private and not is_allowed and not path.startswith("storage/"):
            return Answer(401, {"X-Error-Code": "RepoNotFound"})
        return None

    def _route(self, parts, request):
        match parts:
            case ["storage", digest]:
                return self._content(request, self.stored[digest], {})
            case [owner, name, "resolve", revision, *parts]:
                return self._resolve(f"{owner}/{name}", revision, "/".join(parts), request)
            case ["api", "repos", "create"]:
                return self._create(json.loads(request.body))
            case ["api", "validate-yaml"]:
                return _json({"errors": [], "warnings": []})
            case ["api", "models", owner, name, *rest]:
                return self._api(f"{owner}/{name}", rest, request)
        return Answer(404, {})

    # --- downloads ---------------------------------------------------------------------------------------------------

    def _resolve(self, repository, revision, path, request):
        commit = self._commit_of(repository, revision)
        if isinstance(commit, Answer):
            return commit
        headers = {"X-Repo-Commit": commit}
        content = self.commits[repository, commit].get(path)
        if content is None:
            return Answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
        if not path.endswith((".safetensors", ".bin")):
            return self._content(request, content, {**headers, "ETag": f'"{_git_name(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
        if self.storage is None:
            return self._content(request, content, headers)
        self.storage.stored[digest] = content
        return Answer(302, {**headers, "Location": f"{self.storage.url}/storage/{digest}", "Content-Length": "0"})

    def _content(self, request, content, headers):
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {**headers, "Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Answer(206 if start else 200, headers, content[start:])

    def _commit_of(self, repository, revision):
        if not any(known == repository for known, _ in self.branches):
            return Answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.branches.get((repository, revision), revision)
        return commit if (repository, commit) in self.commits else Answer(404, {"X-Error-Code": "RevisionNotFound"})

    # --- the programming interface -----------------------------------------------------------------------------------

    def _api(self, repository, rest, request):
        action, revision, *folder = rest or ("info", "main")
        if action == "branch":
            self.branches.setdefault((repository, revision), self.branches[repository, "main"])
            return _json({})
        commit = self._commit_of(repository, revision)
        if isinstance(commit, Answer):
            return commit
        if action == "tree":
            return self._tree(self.commits[repository, commit], "".join(f"{part}/" for part in folder))
        if action == "preupload":
            files = json.loads(request.body)["files"]
            return _json({"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        return self._push(repository, revision, request) if action == "commit" else _json({"id": repository})

    def _tree(self, files, folder):
        inside = {path: content for path, content in files.items() if path.startswith(folder)}
        if folder and not inside:
            return Answer(404, {"X-Error-Code": "EntryNotFound"})
        return _json([{"type": "file", "path": p, "size": len(c), "oid": _git_name(c)} for p, c in inside.items()])

    def _create(self, wanted):
        repository = f"{wanted['organization'] or 'someone'}/{wanted['name']}"
        url = f"{self.url}/{repository}"
        if (repository, "main") in self.branches:
            return _json({"url": url}, 409)
        self.commit(repository, {".gitattributes": b""})
        return _json({"url": url})

    def _push(self, repository, branch, request):
        files = dict(self.files(repository, branch))
        for line in request.body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
            if operation["key"] == "deletedFile":
                del files[operation["value"]["path"]]
        branch = "refs/pr/1" if "create_pr=1" in request.path else branch
        commit = self.commit(repository, files, branch)
        pull = f"{self.url}/{repository}/discussions/1"
        return _json(
            {"commitUrl": f"{self.url}/{repository}/commit/{commit}", "commitOid": commit, "pullRequestUrl": pull}
        )


class _Handler(BaseHTTPRequestHandler):
    """One request to `Hub.answer`, written down first. HTTP/1.0: every answer ends its connection."""

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.server.log.append(request)
        answer = self.server.answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                self.wfile.write(piece if self.command != "HEAD" else b"")
        except ConnectionError:
            pass  # the client has heard enough

    def log_message(self, *arguments):
        pass


# --- faults ----------------------------------------------------------------------------------------------------------


def failing(status, **headers):
    """The answer is an error, to be asked again at once."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: Answer(status, {"Retry-After": "0", **named})


def saying(**headers):
    """Headers are others; None leaves one out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    changed = lambda answer: {**answer.headers, **named}  # noqa: E731
    return lambda answer: answer._replace(headers={k: v for k, v in changed(answer).items() if v is not None})


def sending(body):
    """The body is another one, under the headers that there were."""
    return lambda answer: answer._replace(body=body(answer.body) if callable(body) else body)


def _json(value, status=200):
    body = json.dumps(value).encode()
    return Answer(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)


def _git_name(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
