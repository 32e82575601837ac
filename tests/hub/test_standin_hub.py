"""That the stand-in does not lie: the hub's own client takes its answers for the hub's."""

from hub_clients import GEMMA, GPT2, GPT2_SAES, READER, UNKNOWN, VISITOR

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
