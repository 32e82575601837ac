"""``Library`` and the hub: one download for all who ask, what it tells meanwhile, what it keeps, and on a Space the
room that it makes on the disk.
"""

from hub_clients import (
    GEMMA,
    GEMMA_2,
    GEMMA_6,
    GPT2,
    GPT2_0,
    GPT2_SAES,
    PYTHIA,
    PYTHIA_3,
    READER,
    fetched,
)

BEGIN = """
    import os, threading
    from pathlib import Path
    from unittest.mock import patch
    from huggingface_hub.constants import HF_HUB_CACHE
    from multitool.errors import UserError
    from multitool.jobs.local import definition_tree, token_table
    from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
    from multitool.store.hub import fetch_model, fetch_sae_files
    from multitool.store.library import Library
    from multitool.store.registry import find_sae

    def new_library(**options):
        return Library(dtype="float32", device="cpu", bars=False, **options)

    def nodes(library, sae):
        return len(definition_tree(library, VectorRecipe(sae=sae, feature=5), TreeRecipe(cutoff=0.05)).tree)

    def refusal(call, *args, **options):
        try:
            call(*args, **options)
        except UserError as error:
            return str(error)
"""
# A disk of as many bytes as ``capacity``, on which there is nothing but the hub's cache.
DISK = """
    def disk(capacity):
        def usage(path):
            taken = sum(blob.stat().st_size for blob in Path(HF_HUB_CACHE).glob("models--*/blobs/*"))
            return type("Usage", (), {"free": capacity - taken})
        return patch("shutil.disk_usage", usage)

    def used_at(repo, time):
        for blob in Path(HF_HUB_CACHE, "models--" + repo.replace("/", "--"), "blobs").iterdir():
            os.utime(blob, (time, time))

    def kept():
        return sorted(path.name.removeprefix("models--").replace("--", "/", 1)
                      for path in Path(HF_HUB_CACHE).glob("models--*"))
"""
SPACE = {"SPACE_ID": "me/sae-multitool"}


def test_many_who_ask_at_once_make_one_download(tool, hub):
    answer = tool.python(
        f"""{BEGIN}
    library, entries, loaded = new_library(), [find_sae("{GEMMA_6}"), find_sae("{GEMMA_6}".replace("6", "10"))], []
    threads = [threading.Thread(target=lambda entry=entry: loaded.append(library.load(entry))) for entry in entries * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = [len(loaded), len(set(id(sae) for sae, _ in loaded)), len(set(id(subject) for _, subject in loaded))]
        """,
        token=READER,
    )
    assert answer == [6, 2, 1]
    # The two SAEs' sparsity files are equal, and a file that there is under another name need not be fetched.
    files = [file for file in fetched(hub) if not file.endswith("sparsity.safetensors")]
    assert len(files) == len(set(files)) == 2 * 2 + 7


def test_what_was_dropped_from_memory_comes_back_from_the_disk(tool, hub):
    answer = tool.python(
        f"""{BEGIN}
    library = new_library(max_saes=1, max_models=1)
    one, other = find_sae("{GPT2_0}"), find_sae("{PYTHIA_3}")
    first = library.sae(one)
    sizes = [nodes(library, sae) for sae in ("{GPT2_0}", "{PYTHIA_3}", "{GPT2_0}")]
    answer = [library.has(one), library.has(other), library.sae(one) is first, sizes[0] == sizes[2]]
        """
    )
    assert answer == [True, False, False, True]
    files = fetched(hub)
    assert len(files) == len(set(files))


def test_a_model_that_is_too_large_is_refused_before_a_byte_of_it_is_fetched(tool, hub):
    message = tool.python(
        f"""{BEGIN}
    answer = refusal(new_library(max_model_bytes=400_000).subject, "{GPT2}")
        """
    )
    assert all(part in message for part in (GPT2, "1.5 MB", "0.4 MB", "SAE_MULTITOOL_MAX_MODEL_GB")), message
    assert fetched(hub) == []


def test_nothing_is_being_fetched_any_more_when_a_download_has_failed(tool, hub):
    hub.cut[(GPT2, "model.safetensors")] = 1000
    message, progress = tool.python(
        f"""{BEGIN}
    library, entry = new_library(), find_sae("{GPT2_0}")
    answer = [refusal(library.load, entry), library.progress(entry)]
        """
    )
    assert "connection broke off" in message
    assert progress == ""


# Room on the disk


def test_a_space_deletes_what_was_used_longest_ago_and_no_more_than_it_must(tool):
    answer = tool.python(
        f"""{BEGIN}{DISK}
    fetch_model("{GPT2}")
    fetch_model("{PYTHIA}")
    fetch_sae_files("{GPT2_SAES}", ["blocks.0*"], "an SAE")
    used_at("{GPT2_SAES}", 3e8)
    used_at("{GPT2}", 2e8)
    used_at("{PYTHIA}", 1e8)
    with disk(1_900_000):  # 1.7 MB are taken
        fetch_model("{GEMMA}")  # 0.4 MB
    after_one = kept()
    with disk(3_400_000):
        fetch_model("{GEMMA_2}")  # 3.3 MB
    answer = [after_one, kept()]
        """,
        token=READER, **SPACE,
    )
    # GPT-2, the larger one, is not needed for the first; for the second all must go.
    assert answer == [sorted([GPT2, GPT2_SAES, GEMMA]), [GEMMA_2]]


def test_a_space_never_deletes_what_is_wanted_and_says_when_there_is_no_room(tool):
    message, still_there = tool.python(
        f"""{BEGIN}{DISK}
    fetch_sae_files("{GPT2_SAES}", ["blocks.0*"], "an SAE")
    fetch_model("{PYTHIA}")
    used_at("{GPT2_SAES}", 1e8)
    with disk(12_000):
        answer = [refusal(fetch_sae_files, "{GPT2_SAES}", ["blocks.[1-5]*"], "another SAE"), kept()]
        """,
        **SPACE,
    )
    assert f"{GPT2_SAES} takes" in message
    assert still_there == [GPT2_SAES]


def test_a_space_never_deletes_what_it_opens_with(tool):
    assert tool.python(
        f"""{BEGIN}{DISK}
    library = new_library()
    entry = find_sae("gpt2-small-res-jb/blocks.0.hook_resid_pre")
    library.load(entry)
    library.pin(entry)
    fetch_model("{PYTHIA}")
    used_at("{GPT2}", 1e8)
    used_at("{GPT2_SAES}", 2e8)
    with disk(2_000_000):
        library.subject("{GEMMA}")
    answer = kept()
        """,
        token=READER, **SPACE,
    ) == sorted([GEMMA, GPT2, GPT2_SAES])


def test_elsewhere_nothing_is_deleted(tool):
    message, still_there = tool.python(
        f"""{BEGIN}{DISK}
    fetch_model("{PYTHIA}")
    with disk(1_000_000):
        answer = [refusal(fetch_model, "{GPT2}"), kept()]
        """
    )
    assert all(part in message for part in (GPT2, "1.5 MB", "0.8 MB left", "HF_HOME")), message
    assert PYTHIA in still_there


def test_a_model_whose_files_made_room_for_another_runs_again_when_it_is_asked_for(tool, hub):
    answer = tool.python(
        f"""{BEGIN}{DISK}
    library = new_library(max_models=1)
    with disk(3_900_000):
        first = nodes(library, "{GPT2_0}")
        used_at("{GPT2}", 1e8)
        nodes(library, "{PYTHIA_3}")
        token_table(library, VectorRecipe(sae="gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", feature=5),
                    ListRecipe())
        gone = "{GPT2}" not in kept()
        again = nodes(library, "{GPT2_0}")
    answer = [first, gone, again]
        """,
        token=READER, **SPACE,
    )
    first, gone, again = answer
    assert gone
    assert again == first
