"""What other sites show of a link to this page: a title, a sentence and a picture of its own.

Gradio writes its own name and picture into the page's head, and has no switch for them: what it wrote is replaced
where the page is sent. ``tests/page/test_link_preview.py`` tells when Gradio has changed.
"""

import re
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FAVICON, THUMBNAIL = (Path(__file__).with_name(name) for name in ("favicon.png", "thumbnail.png"))
DESCRIPTION = (
    "What does a feature of a sparse autoencoder mean? Ask the language model itself: definition trees and token lists "
    "from the weights alone, with evidence."
)
_PICTURE_PATH = f"/{THUMBNAIL.name}"
_GRADIOS = re.compile(rb'<meta\s+(?:property="og:|name="(?:twitter:|description"))[^>]*>\s*')
_LONGEST = 120  # characters of a feature's name in a title


class LinkPreview:
    """An ASGI middleware that gives the page its own preview, and serves the picture that it names.

    Args:
        title: of the page.
    """

    def __init__(self, app: ASGIApp, title: str):
        self._app, self._title = app, title

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] != "GET" or path not in ("/", _PICTURE_PATH):
            await self._app(scope, receive, send)
        elif path == _PICTURE_PATH:
            await FileResponse(THUMBNAIL)(scope, receive, send)
        else:
            await self._app(scope, receive, _Page(send, _preview(self._title, scope)))


class _Page:
    """Sends an answer whole, with another preview in its head."""

    def __init__(self, send: Send, preview: str):
        self._send, self._preview = send, preview
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = with_preview(self._body, self._preview)
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        await self._send({**self._start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})


def with_preview(page: bytes, preview: str) -> bytes:
    """A page's HTML with this preview in the place of what its head tells of it, before its first script."""
    head, script, rest = page.partition(b"<script")
    return _GRADIOS.sub(b"", head) + preview.encode() + script + rest if script else page


def _preview(title: str, scope: Scope) -> str:
    """The tags for an address: of a link that names a feature, with its name first."""
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    if "sae" in query and "feature" in query:
        title = f"{query['sae']} · feature {query['feature']}"[:_LONGEST] + f" · {title}"
    return preview_tags(title, _origin(scope) + _PICTURE_PATH)


def preview_tags(title: str, picture: str) -> str:
    """The tags as HTML; ``picture`` is the whole address of a PNG."""
    tags = {
        "property": {"og:type": "website", "og:title": title, "og:description": DESCRIPTION, "og:image": picture,
                     "og:image:width": "1200", "og:image:height": "630"},
        "name": {"description": DESCRIPTION, "twitter:card": "summary_large_image"},
    }
    return f"<title>{escape(title)}</title>\n" + "".join(
        f'<meta {kind}="{name}" content="{escape(content, quote=True)}" />\n'
        for kind, named in tags.items() for name, content in named.items()
    )


def _origin(scope: Scope) -> str:
    """Where a visitor sees the page, behind a proxy too: those who fetch the picture need its whole address."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("x-forwarded-host") or headers.get("host", "")
    scheme = str(headers.get("x-forwarded-proto") or scope["scheme"]).split(",")[0].strip()
    return f"{scheme}://{host}{scope.get('root_path', '')}"
