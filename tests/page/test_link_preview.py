"""What other sites show of a link to the page."""

from pathlib import Path

import gradio
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from multitool.page.link_preview import DESCRIPTION, FAVICON, THUMBNAIL, LinkPreview, preview_tags, with_preview

GRADIOS = Path(gradio.__file__).parent / "templates" / "frontend" / "index.html"


def test_nothing_of_gradios_own_preview_is_left_in_its_page():
    page = with_preview(GRADIOS.read_bytes(), preview_tags("Ours", "https://x/thumbnail.png")).decode()
    head = page.partition("<script")[0]
    assert "Gradio" not in head and "githubusercontent" not in head
    assert head.count('property="og:title" content="Ours"') == head.count("og:title") == 1
    assert head.count("og:image\"") == 1 and "og:image" not in page.partition("<script")[2]


@pytest.fixture
def client():
    async def page(request):
        return HTMLResponse('<head><meta property="og:title" content="Gradio" /><script>"é"</script></head>')

    async def other(request):
        return PlainTextResponse('<meta property="og:title" content="Gradio" /><script>')

    app = Starlette(routes=[Route("/", page), Route("/other", other)])
    return TestClient(LinkPreview(app, title="Tool"), base_url="http://inner")


def test_a_link_that_names_a_feature_is_titled_by_it_and_what_it_says_stays_text(client):
    assert '<title>Tool</title>' in client.get("/").text
    seen_at = {"x-forwarded-proto": "https", "x-forwarded-host": "hub"}
    answer = client.get("/?sae=demo/<b>&feature=%22927", headers=seen_at)
    assert answer.text.endswith('<script>"é"</script></head>')
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert 'og:title" content="demo/&lt;b&gt; · feature &quot;927 · Tool"' in answer.text
    assert 'og:image" content="https://hub/thumbnail.png"' in answer.text


def test_everything_else_is_left_alone(client):
    assert client.get("/other").text == '<meta property="og:title" content="Gradio" /><script>'
    assert "Tool" not in client.post("/").text


def test_the_pictures_are_there_and_as_large_as_they_say(client):
    answer = client.get("/thumbnail.png")
    assert answer.headers["content-type"] == "image/png" and answer.content == THUMBNAIL.read_bytes()
    with Image.open(THUMBNAIL) as thumbnail, Image.open(FAVICON) as icon:
        assert thumbnail.size == (1200, 630) and icon.size[0] == icon.size[1] >= 180
    assert len(DESCRIPTION) <= 200
