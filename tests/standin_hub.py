"""A stand-in for the Hugging Face hub on loopback, for the real clients: HF_ENDPOINT is all that they need.

It answers what they ask to fetch models, SAEs and datasets, in the hub's words: the client tells errors apart by status
and headers. Files come at once, without a redirect to a content network, LFS or Xet, unless it is told to redirect, as
mirrors do. Datasets are taken too: files with the commit, or by LFS where it is told so; never by Xet.
"""

import asyncio
import base64
import hashlib
import json
import threading
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import uvicorn
import yaml
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
        repos: the files of every repository, by id and path; a dataset's id begins with "datasets/". The commit's hash
            follows from them.
        tokens: those of the hub's accounts.
        writers: the tokens that may write to each owner's repositories, by the owner's name.
        private: repositories that only those see.
        lfs: the endings of files that are taken by LFS.
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
        self.writers: dict[str, set[str]] = {}
        self.private: set[str] = set()
        self.lfs: tuple[str, ...] = ()
        self._large: dict[str, bytes] = {}  # what has come by LFS, by its SHA-256
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
        asked = {
            "/auth-check": self._admit, "/tree/{at}": self._tree, "/revision/{at}": self._revision, "": self._about,
        }
        answers = {
            f"/api/{kind}/{{repo:path}}{path}": self._answering(answer, "datasets/" if kind == "datasets" else "")
            for kind in ("models", "datasets") for path, answer in asked.items()
        } | {"/{repo:path}/resolve/{at}/{path:path}": self._answering(self._file)}
        taken = {
            "/api/repos/create": self._create,
            "/api/validate-yaml": self._validate,
            "/api/datasets/{repo:path}/preupload/{at}": self._preupload,
            "/api/datasets/{repo:path}/commit/{at}": self._commit,
            "/datasets/{repo:path}.git/info/lfs/objects/batch": self._batch,
        }
        places = [(below + path, answer) for below in ("/moved", "") for path, answer in answers.items()]
        app = Starlette(routes=[
            *(Route(path, self._taking(take), methods=["POST"]) for path, take in taken.items()),
            Route("/large/{oid}", self._keep_large, methods=["PUT"]),
            *(Route(path, answer) for path, answer in places),
        ])
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

    def _answering(self, answer, prefix=""):
        async def endpoint(asked: Asked) -> Response:
            token = token_of(asked)
            try:
                self._known(token)
                given = asked.path_params | {"repo": prefix + asked.path_params["repo"]}
                if not self._seen(given["repo"], token):
                    raise RefusalError(404 if token else 401, "RepoNotFound", "Repository not found")
                response = self._sent_on(asked) or answer(asked, token, **given)
            except RefusalError as refusal:
                response = Response(status_code=refusal.status, headers=refusal.headers)
            self.requests.append(Request(asked.method, asked.scope["path"], response.status_code, token is not None))
            return response

        return endpoint

    def _known(self, token: str | None) -> None:
        """Refuse a token of no account, and everybody while the hub is down."""
        if self.down:
            raise RefusalError(503, None, "Service Unavailable")
        if token and token not in self.tokens:
            raise RefusalError(401, None, "Invalid credentials in Authorization header")

    def _seen(self, repo: str, token: str | None) -> bool:
        return repo in self.repos and (repo not in self.private or self._writes(repo, token))

    def _writes(self, repo: str, token: str | None) -> bool:
        return token in self.writers.get(repo.split("/")[-2], set())

    def _taking(self, take):
        async def endpoint(asked: Asked) -> Response:
            body = await asked.body()
            token = token_of(asked)
            try:
                self._known(token)
                if token is None:
                    raise RefusalError(401, None, "Invalid username or password.")
                repo = "datasets/" + asked.path_params["repo"] if "repo" in asked.path_params else None
                if repo and repo not in self.repos:
                    raise RefusalError(404, "RepoNotFound", "Repository not found")
                if repo and not self._writes(repo, token):
                    raise RefusalError(403, None, "Forbidden: you must have write access")
                response = take(body, token, repo)
            except RefusalError as refusal:
                response = JSONResponse({}, refusal.status, refusal.headers)
            self.requests.append(Request(asked.method, asked.scope["path"], response.status_code, token is not None))
            return response

        return endpoint

    def _create(self, body: bytes, token: str, repo: None) -> Response:
        asked = json.loads(body)
        repo = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
        if not self._writes(repo, token):
            raise RefusalError(403, None, "You don't have the rights to create a dataset under this namespace")
        if repo in self.repos:
            raise RefusalError(409, None, "You already created this dataset repo")
        self.repos[repo] = {".gitattributes": b""}
        self.private |= {repo} if asked["visibility"] == "private" else set()
        return JSONResponse({"url": f"{self.url}/{repo}"})

    def _validate(self, body: bytes, token: str, repo: None) -> Response:
        """Of a card the hub checks the YAML, the licence for instance."""
        head = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        if head.get("license", "mit") in ("mit", "cc-by-4.0"):
            return JSONResponse({"errors": [], "warnings": []})
        return JSONResponse({"errors": [{"message": '"license" must be one of [mit, cc-by-4.0]'}], "warnings": []}, 400)

    def _preupload(self, body: bytes, token: str, repo: str) -> Response:
        return JSONResponse({"files": [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(self.lfs) else "regular",
             "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        ]})  # fmt: skip

    def _batch(self, body: bytes, token: str, repo: str) -> Response:
        return JSONResponse({"transfer": "basic", "objects": [
            one | {"actions": {"upload": {"href": f"{self.url}/large/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]})  # fmt: skip

    async def _keep_large(self, asked: Asked) -> Response:
        self._large[asked.path_params["oid"]] = await asked.body()
        self.requests.append(Request(asked.method, asked.scope["path"], 200, token_of(asked) is not None))
        return Response()

    def _commit(self, body: bytes, token: str, repo: str) -> Response:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    self.repos[repo][value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.repos[repo][value["path"]] = self._large[value["oid"]]
        commit = self.commit(repo)
        return JSONResponse({"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

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


def token_of(asked: Asked) -> str | None:
    return asked.headers.get("Authorization", "").removeprefix("Bearer ") or None


@cache
def data(content: bytes | Path) -> bytes:
    """The file's bytes. One on disk never changes."""
    return content.read_bytes() if isinstance(content, Path) else content


@cache
def etag(content: bytes | Path) -> str:
    """The hash by which clients know a file's content."""
    return hashlib.sha1(data(content)).hexdigest()
