"""What the page tells of a tree, the link to it, and the file to explore it, against the stored ones.

See tests/golden_files.py for how to renew what is stored.
"""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

from golden_files import tree_told

SETTINGS = {
    "sae": "demo/hook_embed", "feature": 927, "weights": "mix", "encoder_share": 0.7, "pca": "0.1,-0.05",
    "cutoff": 0.004, "top_k": 0, "max_nodes": 50, "max_depth": 6, "prompt": 'A "{ghost}" is a kind of "', "clamp": 0.5,
    "steer_at": "prompt",
}


class _Parts(HTMLParser):
    """A page's scripts, and its texts outside of them."""

    def __init__(self, source: str):
        super().__init__()
        self.scripts, self.texts, self._in = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style" and data.strip():
            self.texts.append(data.strip())


def download(page, button: str) -> str:
    with page.expect_download() as caught:
        page.click(button)
    return Path(caught.value.path()).read_text(encoding="utf-8")


def test_a_link_gives_the_tree_what_is_told_of_it_and_the_file_to_explore_it(golden, page, app_url):
    page.goto(f"{app_url}/?{urlencode(SETTINGS)}")
    # Until then the page shows the tree that it opens with.
    page.wait_for_function(
        "told => document.querySelector('#link input')?.value.includes(told)",
        arg=f"cutoff={SETTINGS['cutoff']}",
    )
    page.wait_for_function("/^[0-9,]+ nodes at cutoff/.test(document.querySelector('#status textarea').value)")
    page.locator("#tree-view .explorer").wait_for()
    file = _Parts(download(page, "#html"))
    told = [text for text in file.texts if not text.startswith("{")]  # all settings, which are pinned below
    golden("app/page", {
        "link": page.input_value("#link input"),
        "title": page.inner_text("#tree-title b"),
        "status": page.input_value("#status textarea"),
        "coverage": page.inner_text("#coverage"),
        "about": page.inner_text("#sae-about .prose"),
        "tree": tree_told(json.loads(download(page, "#json"))),
        "file to explore": {"view": json.loads(file.scripts[0]), "texts": told},
    }, {app_url: "URL"})
