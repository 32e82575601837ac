"""A stand-in for the Hugging Face hub on loopback, for the real clients: HF_ENDPOINT is all that they need.

It answers as huggingface.co does, with two differences: files come at once instead of by a redirect to a content
network, and large ones as plain LFS files, without Xet.
"""

import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_LFS_SUFFIXES = {".bin", ".gguf", ".h5", ".npz", ".pt", ".pth", ".safetensors"}
_API = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)"  # without an owner there is none here
    r"(?:/(?P<what>auth-check|paths-info|revision|tree)(?:/(?P<revision>[^/]+)(?:/(?P<folder>.+))?)?)?"
)
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(?=.*\d)(\d*)-(\d*)")


class Request(NamedTuple):
    """One request as it was answered. The path is without the query, and unquoted."""

    method: str
    path: str
    status: int
    token: bool


class StandInHub:
    """Serves repositories from ``start`` to ``stop``, or in a ``with`` block. All of it may be changed meanwhile.

    Args:
        repos: the files of every repository, by id and path. The commit's hash follows from them.
        tokens: the accounts' names by their tokens.
        gated: of each gated repository, by id, the tokens that may read it. As on the hub, anyone may list it.

    Attributes:
        url: the value for HF_ENDPOINT, from the first start on; a hub that starts again has it again.
        requests: what was answered, in order.
        cut: of each file (a pair of repository and path) the number of bytes after which a GET's connection closes.
        stall: the files of which a GET brings the headers and a part, and the rest when the file is taken out again.
        missing: files that are listed, and not there.
        down: whether everything is answered with 503.
    """

    def __init__(
        self,
        repos: dict[str, dict[str, bytes | Path]],
        *,
        tokens: dict[str, str] | None = None,
        gated: dict[str, set[str]] | None = None,
    ):
        self.repos = repos
        self.tokens = tokens or {}
        self.gated = gated or {}
        self.cut: dict[tuple[str, str], int] = {}
        self.stall: set[tuple[str, str]] = set()
        self.missing: set[tuple[str, str]] = set()
        self.down = False
        self.requests: list[Request] = []
        self._port = 0
        self._server: _Server | None = None

    def __enter__(self) -> "StandInHub":
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = _Server(self, self._port)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be gone, with all connections; a second time does nothing."""
        if self._server:
            self._server.shutdown()
            self._server.close()
            self._server = None

    def clear(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """This process's environment for a client that knows nothing but this hub, an own cache and a token."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSF"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        return kept | own | ({"HF_TOKEN": token} if token else {})

    def commit(self, repo: str) -> str:
        """The hash that the repository's files have as a commit."""
        files = sorted((path, _blob(path, content).oid) for path, content in self.repos[repo].items())
        return hashlib.sha1(f"{repo} {files}".encode()).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: StandInHub, port: int):
        super().__init__(("127.0.0.1", port), _Handler)
        self.hub = hub
        self.closed = False
        self.connections: set[socket.socket] = set()

    def close(self) -> None:
        # Connections outlive the server that accepted them, and a client that kept one would go on being served.
        self.closed = True
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        # Clients hang up when they have read enough, or were killed.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _RefusalError(Exception):
    """An error as the hub words it: in the headers for its own client, in the body for everyone else."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str):
        self.status = status
        self.message = message
        self.headers = ({"X-Error-Code": code} if code else {}) | {"X-Error-Message": message} | headers


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; the second would wait for 40 ms

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        self.hub = self.server.hub
        self.url = urlsplit(self.path)
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._check()
            if self.url.path == "/api/whoami-v2":
                self._json(self._whoami())
            elif match := _API.fullmatch(self.url.path):
                self._json(self._api(**match.groupdict(), form=parse_qs(sent.decode())))
            elif match := _RESOLVE.fullmatch(self.url.path):
                self._file(match["repo"], unquote(match["revision"]), unquote(match["path"]))
            else:
                raise _RefusalError(404, None, "Sorry, we can't find the page you are looking for.")
        except _RefusalError as refusal:
            if self.url.path.startswith("/api/"):
                self._json({"error": refusal.message}, refusal.status, refusal.headers)
            else:
                self._body(refusal.message.encode(), refusal.status, "text/plain", refusal.headers)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _check(self) -> None:
        if self.hub.down:
            raise _RefusalError(503, None, "Service Unavailable")
        if self.token and self.token not in self.hub.tokens:
            raise _RefusalError(401, None, "Invalid credentials in Authorization header")

    def _whoami(self) -> dict:
        if self.token is None:
            raise _RefusalError(401, None, "Invalid username or password.")
        name = self.hub.tokens[self.token]
        access = {"displayName": "a token", "role": "read", "createdAt": "2024-01-01T00:00:00.000Z"}
        return {
            "type": "user",
            "id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "name": name,
            "fullname": name,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": access},
        }

    def _api(self, repo: str, what: str | None, revision: str | None, folder: str | None, form: dict):
        query = parse_qs(self.url.query)
        commit = self._commit(repo, unquote(revision or "main"))
        if what == "auth-check":
            self._admit(repo)
            return {}
        if what == "tree":
            return self._tree(repo, unquote(folder or ""), query.get("recursive") == ["true"])
        if what == "paths-info":
            listed = self._tree(repo, "", recursive=True)
            return [entry for entry in listed if entry["path"] in form.get("paths", [])]
        with_blobs = query.get("blobs") == ["true"]
        return {
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": commit,
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
            "private": False,
            "disabled": False,
            "gated": "manual" if repo in self.hub.gated else False,
            "tags": [],
            "siblings": [
                {"rfilename": path} | (_blob(path, content).as_sibling() if with_blobs else {})
                for path, content in sorted(self.hub.repos[repo].items())
            ],
        }

    def _commit(self, repo: str, revision: str) -> str:
        """The commit of the revision, of a repository that there is."""
        if repo not in self.hub.repos:
            if self.token:
                raise _RefusalError(404, "RepoNotFound", "Repository not found")
            # The hub sends no code here: its client knows the case by the URL, but only behind https.
            raise _RefusalError(401, "RepoNotFound", "Invalid username or password.")
        commit = self.hub.commit(repo)
        if revision not in ("main", commit):
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _admit(self, repo: str) -> None:
        """Refuse who may not read a gated repository."""
        if repo not in self.hub.gated or self.token in self.hub.gated[repo]:
            return
        if self.token is None:
            reason = "You must have access to it and be authenticated to access it. Please log in."
            raise _RefusalError(401, "GatedRepo", f"Access to model {repo} is restricted. {reason}")
        reason = f"you are not in the authorized list. Visit https://huggingface.co/{repo} to ask for access."
        raise _RefusalError(403, "GatedRepo", f"Access to model {repo} is restricted and {reason}")

    def _tree(self, repo: str, folder: str, recursive: bool) -> list[dict]:
        files = self.hub.repos[repo]
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        if folder and folder not in folders:
            raise _RefusalError(404, "EntryNotFound", f"{folder} does not exist on this revision")
        entries = [
            {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
            for path in folders
        ]
        entries += [{"type": "file", "path": path} | _blob(path, content).as_entry() for path, content in files.items()]
        parent = PurePosixPath(folder)
        return [
            entry
            for entry in sorted(entries, key=lambda entry: entry["path"])
            if PurePosixPath(entry["path"]).parent == parent
            or (recursive and parent in PurePosixPath(entry["path"]).parents)
        ]

    def _file(self, repo: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        self._admit(repo)
        files = self.hub.repos[repo]
        if path not in files or (repo, path) in self.hub.missing:
            raise _RefusalError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        blob = _blob(path, files[path])
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{blob.etag}"'}
        if blob.sha256:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(blob.size)}
        part = self._range(blob.size)
        body = _bytes(files[path])[part or slice(None)]
        if part:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{blob.size}"
        self._head(206 if part else 200, len(body), "application/octet-stream", headers)
        if self.command == "GET":
            self._send(body, (repo, path))

    def _send(self, body: bytes, file: tuple[str, str]) -> None:
        """The body, with what is to go wrong with it."""
        cut = self.hub.cut.get(file, len(body))
        if cut < len(body):
            self.wfile.write(body[:cut])
            self.close_connection = True
            return
        if file in self.hub.stall:
            sent = min(len(body) // 2, 65_536)
            self.wfile.write(body[:sent])
            body = body[sent:]
            while file in self.hub.stall and not self.server.closed:
                time.sleep(0.02)
        self.wfile.write(body)

    def _range(self, size: int) -> slice | None:
        match = _RANGE.fullmatch(self.headers.get("Range") or "")
        if match is None or self.command != "GET":
            return None
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise _RefusalError(416, None, "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
        return slice(start, stop)

    def _json(self, answer, status: int = 200, headers: dict | None = None) -> None:
        self._body(json.dumps(answer).encode(), status, "application/json; charset=utf-8", headers)

    def _body(self, body: bytes, status: int, content_type: str, headers: dict | None) -> None:
        self._head(status, len(body), content_type, headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, content_type: str, headers: dict | None) -> None:
        self.hub.requests.append(Request(self.command, unquote(self.url.path), status, self.token is not None))
        self.send_response(status)
        for name, value in {"Content-Length": length, "Content-Type": content_type, **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()


class _Blob(NamedTuple):
    """What the hub tells of a file's content."""

    size: int
    oid: str  # of the git object: for an LFS file the pointer
    sha256: str | None  # of an LFS file
    pointer_size: int

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def as_entry(self) -> dict:
        lfs = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}}
        return {"oid": self.oid, "size": self.size} | (lfs if self.sha256 else {})

    def as_sibling(self) -> dict:
        lfs = {"lfs": {"sha256": self.sha256, "size": self.size, "pointerSize": self.pointer_size}}
        return {"blobId": self.oid, "size": self.size} | (lfs if self.sha256 else {})


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _blob(path: str, content: bytes | Path) -> _Blob:
    changed = content.stat().st_mtime_ns if isinstance(content, Path) else None
    return _cached_blob(PurePosixPath(path).suffix in _LFS_SUFFIXES, content, changed)


@cache
def _cached_blob(lfs: bool, content: bytes | Path, changed: int | None) -> _Blob:
    stored = data = _bytes(content)
    sha256 = hashlib.sha256(data).hexdigest() if lfs else None
    if lfs:
        stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
    oid = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
    return _Blob(len(data), oid, sha256, len(stored))
