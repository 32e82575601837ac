"""That the stand-in does not lie: the hub's own client takes its answers for the hub's."""

import pytest
from hub_clients import GEMMA, GEMMA_6, GPT2, GPT2_0, GPT2_SAES, READER, UNKNOWN, VISITOR
from standin_hub import StandInHub

ASK = f"""
    from huggingface_hub import HfApi, hf_hub_download

    def error(call, *args):
        try:
            call(*args)
        except Exception as error:
            return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]

    answer = [
        error(hf_hub_download, "{GEMMA}", "config.json"),
        error(HfApi().auth_check, "{GEMMA}"),
        error(HfApi().model_info, "{GEMMA}"),  # anyone may see that it is there
        error(HfApi().model_info, "google/gemma-3b"),
        error(hf_hub_download, "{GPT2_SAES}", "nothing.json"),
    ]
"""


def test_errors_are_those_that_the_client_knows(tool):
    missing = ["RemoteEntryNotFoundError", 404]
    gated = ["GatedRepoError", 401]
    assert tool.python(ASK) == [gated, gated, None, ["RepositoryNotFoundError", 401], missing]
    gated = ["GatedRepoError", 403]
    assert tool.python(ASK, token=VISITOR) == [gated, gated, None, ["RepositoryNotFoundError", 404], missing]
    assert tool.python(ASK, token=UNKNOWN) == [["HfHubHTTPError", 401]] * 5
    assert tool.python(ASK, token=READER) == [None, None, None, ["RepositoryNotFoundError", 404], missing]


def test_a_download_goes_on_where_the_connection_broke(tool, hub, repos):
    content = bytes(range(251)) * 50_000
    # The client writes 10 MiB at once, and what came of the next ones is lost.
    hub.repos[GPT2] = {"large.bin": content}
    hub.cut[(GPT2, "large.bin")] = 11_000_000
    whole = tool.python(f"""
    from pathlib import Path
    from huggingface_hub import hf_hub_download
    answer = Path(hf_hub_download("{GPT2}", "large.bin")).read_bytes() == bytes(range(251)) * 50_000
    """)
    assert whole
    assert [(asked.method, asked.status) for asked in hub.requests] == [("HEAD", 200), ("GET", 200), ("GET", 206)]


@pytest.mark.parametrize("place", ["below", "elsewhere"])
@pytest.mark.parametrize("sae", [GPT2_0, GEMMA_6], ids=["public", "gated"])
def test_a_mirror_that_redirects(tool, hub, repos, place, sae):
    with StandInHub({READER}) as other:
        other.repos = repos
        to = "/moved" if place == "below" else other.url
        hub.redirects = {"api": to, "file": to}
        done = tool("tokens", "--feature", 5, "--top", 3, "--sae", sae, token=READER)
        assert done.status == 0, done.err
        answered = hub if place == "below" else other
        assert [asked for asked in answered.requests if "/resolve/" in asked.path and asked.status == 200]
        assert {asked.status for asked in hub.requests if not asked.path.startswith("/moved")} == {302}
        # A token goes to the mirror that the user named, and to no other host.
        assert not any(asked.token for asked in other.requests)
