"""The page behind a proxy: what is on this machine is never asked for through it."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from multitool.errors import UserError
from multitool.page.proxies import spare_localhost

SOCKS = {"has_socks": lambda: True}


def prepared(found: dict, **how) -> dict[str, str]:
    environment: dict[str, str] = how.pop("environment", {})
    spare_localhost(environment, lambda: found, **{**SOCKS, **how})
    return environment


def test_without_a_proxy_nothing_changes():
    assert prepared({}) == prepared({"no": "example.com"}) == prepared({"ftp": "ftp://proxy:21"}) == {}


def test_localhost_is_spared_beside_what_is_spared_already():
    set_ = prepared({"http": "http://proxy:3128", "no": "example.com, .corp"})
    assert set_ == {"http_proxy": "http://proxy:3128", "no_proxy": set_["NO_PROXY"],
                    "NO_PROXY": "example.com,.corp,localhost,127.0.0.1,::1"}


def test_the_address_that_the_page_is_served_at_is_spared_too():
    set_ = prepared({"all": "http://proxy:3128"}, environment={"GRADIO_SERVER_NAME": "10.1.2.3"})
    assert set_["no_proxy"] == "localhost,127.0.0.1,::1,10.1.2.3"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("https://me:secret@proxy", "https://me:secret@proxy"),
        ("socks://127.0.0.1:1080/", "socks5://127.0.0.1:1080/"),  # as GNOME writes it
        ("socks5h://proxy:1080", "socks5h://proxy:1080"),
    ],
)
def test_addresses_as_people_and_desktops_write_them(written, read):
    assert prepared({"all": written})["all_proxy"] == read


@pytest.mark.parametrize("written", ["ftp://me:secret@proxy", "http://me:secret@proxy:port", "socks4://secret", "http://"])
def test_one_that_no_client_takes_is_told_without_its_password(written):
    with pytest.raises(UserError, match="HTTPS_PROXY.*socks5://HOST:PORT") as caught:
        prepared({"https": written})
    assert "secret" not in str(caught.value)


def test_a_socks_proxy_without_the_package_for_it_is_told():
    with pytest.raises(UserError, match="ALL_PROXY.*pip install socksio"):
        prepared({"all": "socks5://proxy:1080"}, has_socks=lambda: None)


def test_http_clients_take_it_so(monkeypatch):
    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self):  # noqa: N802
            self.send_response(200)
            self.end_headers()

        def log_message(self, *about):
            pass

    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # where nothing listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    page = [f"http://{host}:{server.server_port}/" for host in ("127.0.0.1", "localhost")]

    def opens(url: str) -> bool:
        try:
            return httpx.head(url).is_success
        except httpx.ConnectError:
            return False

    assert list(map(opens, page)) == [False, False]
    spare_localhost()
    assert list(map(opens, page)) == [True, True]
    assert not opens("http://example.com/"), "what is elsewhere is asked for through the proxy as before"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_app_says_so_before_anything_reads_the_settings():
    proxies = {"ALL_PROXY": "nothing://proxy"}
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run([sys.executable, "app.py"], env=kept | proxies, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("multitool: The proxy that ALL_PROXY") and "Traceback" not in done.stderr
