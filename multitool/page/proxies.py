"""The proxies that this machine is set to, made such that Gradio opens behind them.

Imports no Gradio: on its import it already makes clients that read these settings.
"""

import os
from collections.abc import Callable, MutableMapping
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies

from multitool.errors import UserError

_HERE = ("localhost", "127.0.0.1", "::1")
_KINDS = ("http", "https", "socks5", "socks5h")


def spare_localhost(
    environment: MutableMapping[str, str] = os.environ,
    settings: Callable[[], dict[str, str]] = getproxies,
    has_socks: Callable[[], object] = lambda: find_spec("socksio"),
) -> None:
    """Set proxies and exceptions for this process: what is on this machine is never asked for through a proxy.

    Gradio asks for its own page before it says that it runs, and a proxy cannot reach that.

    Args:
        settings: the proxies of the environment, or on Windows and macOS of the system; "no" has the exceptions.
        has_socks: whether the package that speaks to SOCKS proxies is there.

    Raises:
        UserError: a proxy is none that can be used.
    """
    found = settings()
    proxies = {scheme: url for scheme in ("http", "https", "all") if (url := found.get(scheme, "").strip())}
    if not proxies:
        return
    for scheme, url in proxies.items():
        # Those of the system too, which count no longer once the environment says anything about proxies.
        environment[f"{scheme}_proxy"] = _usable(scheme, url, has_socks)
    exceptions = [host.strip() for host in found.get("no", "").split(",") if host.strip()]
    own = (*_HERE, *filter(None, [environment.get("GRADIO_SERVER_NAME")]))
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join([*exceptions, *own])


def _usable(scheme: str, url: str, has_socks: Callable[[], object]) -> str:
    """A proxy's address as HTTP clients take it. Messages leave it out: it may hold a password."""
    variable = f"{scheme.upper()}_PROXY"
    url = url if "://" in url else f"http://{url}"
    if url.startswith("socks://"):  # as desktops write it
        url = url.replace("socks://", "socks5://", 1)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _KINDS and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise UserError(
            f"The proxy that {variable} (or the system's settings) names cannot be used. Valid are "
            "http://HOST:PORT, https://HOST:PORT and socks5://HOST:PORT; correct it, or unset it."
        )
    if parts.scheme.startswith("socks") and not has_socks():
        raise UserError(
            f"{variable} (or the system's settings) names a SOCKS proxy, for which a package is missing here. Install "
            "it (`pip install socksio`), or unset the variable."
        )
    return url
