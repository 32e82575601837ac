"""A stand-in for the Hugging Face hub on loopback, for the real clients: HF_ENDPOINT is all that they need.

It answers what they ask to fetch models and SAEs, in the hub's words: the client tells errors apart by status and
headers. Files come at once, without a redirect to a content network, LFS or Xet, unless it is told to redirect, as
mirrors do.
"""

import asyncio
import hashlib
import threading
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


class Request(NamedTuple):
    """One request as it was answered. The path is without the query, and unquoted."""

    method: str
    path: str
    status: int
    token: bool


class RefusalError(Exception):
    """An error as the hub words it, in the headers for its client."""

    def __init__(self, status: int, code: str | None, message: str):
        self.status = status
        self.headers = ({"X-Error-Code": code} if code else {}) | {"X-Error-Message": message}


class StandInHub:
    """Serves repositories from ``start`` to ``stop``, or in a ``with`` block. All of it may be changed meanwhile.

    Attributes:
        url: the value for HF_ENDPOINT, from the first start on; a hub that starts again has it again.
        repos: the files of every repository, by id and path. The commit's hash follows from them.
        tokens: those of the hub's accounts.
        gated: of each gated repository, by id, the tokens that may read it. As on the hub, anyone may list it.
        requests: what was answered, in order.
        cut: of each file (a pair of repository and path) the number of bytes after which a GET's connection closes.
        stall: the files of which a GET brings the headers and a part, and the rest when the file is taken out again.
        missing: files that are listed, and not there.
        down: whether everything is answered with 503.
        redirects: where requests are sent on to, by their kind, "api" or "file": a beginning of addresses, of another
            hub ("http://…") or below this one ("/moved"). Those of files tell the revision, as the hub's own do,
            unless ``bare``.
        bare: whether they do not.
    """

    def __init__(self, tokens: set[str]):
        self.tokens = tokens
        self._port = 0
        self._server: uvicorn.Server | None = None
        self.reset({}, {})

    def reset(self, repos: dict[str, dict[str, bytes | Path]], gated: dict[str, set[str]]) -> None:
        """Serve these, without faults."""
        self.repos, self.gated = dict(repos), dict(gated)
        self.cut: dict[tuple[str, str], int] = {}
        self.stall: set[tuple[str, str]] = set()
        self.missing: set[tuple[str, str]] = set()
        self.down = False
        self.redirects: dict[str, str] = {}
        self.bare = False
        self.requests: list[Request] = []

    def __enter__(self) -> "StandInHub":
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Be there; a second time does nothing."""
        if self._server:
            return
        answers = {
            "/api/models/{repo:path}/auth-check": self._admit,
            "/api/models/{repo:path}/tree/{at}": self._tree,
            "/api/models/{repo:path}/revision/{at}": self._revision,
            "/api/models/{repo:path}": self._about,
            "/{repo:path}/resolve/{at}/{path:path}": self._file,
        }
        places = [(below + path, answer) for below in ("/moved", "") for path, answer in answers.items()]
        app = Starlette(routes=[Route(path, self._answering(answer)) for path, answer in places])
        self._server = uvicorn.Server(uvicorn.Config(app, port=self._port, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self._port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Be gone, with all connections; a second time does nothing."""
        if self._server:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            self._server = None

    def clear(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def commit(self, repo: str) -> str:
        """The hash that the repository's files have as a commit."""
        files = sorted((path, etag(content)) for path, content in self.repos[repo].items())
        return hashlib.sha1(f"{repo} {files}".encode()).hexdigest()

    def _answering(self, answer):
        async def endpoint(asked: Asked) -> Response:
            token = asked.headers.get("Authorization", "").removeprefix("Bearer ") or None
            try:
                if self.down:
                    raise RefusalError(503, None, "Service Unavailable")
                if token and token not in self.tokens:
                    raise RefusalError(401, None, "Invalid credentials in Authorization header")
                if asked.path_params["repo"] not in self.repos:
                    raise RefusalError(404 if token else 401, "RepoNotFound", "Repository not found")
                response = self._sent_on(asked) or answer(asked, token, **asked.path_params)
            except RefusalError as refusal:
                response = Response(status_code=refusal.status, headers=refusal.headers)
            self.requests.append(Request(asked.method, asked.scope["path"], response.status_code, token is not None))
            return response

        return endpoint

    def _sent_on(self, asked: Asked) -> Response | None:
        """The redirect that there is for a request, but for one that has come that way."""
        path = asked.scope["path"]
        place = self.redirects.get("api" if path.startswith("/api/") else "file")
        if place is None or path.startswith(place):
            return None
        headers = {"Location": place + path + (f"?{asked.url.query}" if asked.url.query else "")}
        if "path" in asked.path_params and not self.bare:
            repo = asked.path_params["repo"]
            content = self.repos[repo][asked.path_params["path"]]
            headers |= {"X-Repo-Commit": self.commit(repo), "X-Linked-ETag": f'"{etag(content)}"',
                        "X-Linked-Size": str(len(data(content)))}
        return Response(status_code=302, headers=headers)

    def _admit(self, asked: Asked, token: str | None, repo: str) -> Response:
        """Refuse who may not read a gated repository."""
        if repo in self.gated and token not in self.gated[repo]:
            raise RefusalError(403 if token else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        return JSONResponse({})

    def _about(self, asked: Asked, token: str | None, repo: str) -> Response:
        return JSONResponse({"id": repo, "sha": self.commit(repo), "siblings": []})

    def _revision(self, asked: Asked, token: str | None, repo: str, at: str) -> Response:
        if at not in ("main", self.commit(repo)):
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {at}")
        return self._about(asked, token, repo)

    def _tree(self, asked: Asked, token: str | None, repo: str, at: str) -> Response:
        files = sorted(self.repos[repo].items())
        return JSONResponse([
            {"type": "file", "path": path, "oid": etag(content), "size": len(data(content))} for path, content in files
        ])  # fmt: skip

    def _file(self, asked: Asked, token: str | None, repo: str, at: str, path: str) -> Response:
        self._admit(asked, token, repo)
        content, file = self.repos[repo].get(path), (repo, path)
        if content is None or file in self.missing:
            raise RefusalError(404, "EntryNotFound", "Entry not found")
        whole = data(content)
        first = int(asked.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"X-Repo-Commit": self.commit(repo), "ETag": f'"{etag(content)}"', "Accept-Ranges": "bytes",
                   "Content-Length": str(len(whole) - first)}
        if asked.method == "HEAD":
            return Response(headers=headers)
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
        return StreamingResponse(self._sent(whole[first:], file), 206 if first else 200, headers)

    async def _sent(self, body: bytes, file: tuple[str, str]):
        """The body, with what is to go wrong with it."""
        if len(body) > self.cut.get(file, len(body)):
            yield body[: self.cut[file]]
            raise ConnectionAbortedError
        half = len(body) // 2
        yield body[:half]
        while file in self.stall:
            await asyncio.sleep(0.02)
        yield body[half:]


@cache
def data(content: bytes | Path) -> bytes:
    """The file's bytes. One on disk never changes."""
    return content.read_bytes() if isinstance(content, Path) else content


@cache
def etag(content: bytes | Path) -> str:
    """The hash by which clients know a file's content."""
    return hashlib.sha1(data(content)).hexdigest()
