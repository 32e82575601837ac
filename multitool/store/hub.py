"""Files from the Hugging Face hub: fetched once with progress, and in plain words when they cannot be had.

Downloads go through huggingface_hub's own cache; the token is its own too (``HF_TOKEN`` or ``hf auth login``).
"""

import contextlib
import glob
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from multitool.errors import UserError, shown, size_shown, some
from multitool.store.problems import asking_hub

Report = Callable[[int, int], None]  # bytes there, bytes in all

# A model's own files at the top of its repository: configuration, tokenizer, safetensors. No pickles, no code, and
# none of the copies in other formats that many repositories hold in folders beside them.
MODEL_FILES = ("*.json", "model*.safetensors", "tokenizer.model", "*.jinja", "merges.txt")
_IN_FOLDERS = ("*/*",)
# What an SAE's folder may hold, in any format that is read.
FOLDER_FILES = ("*.json", "*.safetensors", "*.npz", "ae.pt")
MAX_FOLDER_FILES = 64
MAX_FOLDER_BYTES = 20 * 10**9
# What an atlas is made of.
ATLAS_FILES = ("*.parquet", "*atlas.json")
MAX_ATLAS_FILES = 20_000
MAX_ATLAS_BYTES = 20 * 10**9
_OTHER_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")
_LISTED = 20_000  # files of a repository, at most, that are looked through for a message


@dataclass(frozen=True)
class DownloadOptions:
    """How something is fetched."""

    report: Report | None = None  # told of the progress; None: the hub's own bars on standard error
    max_bytes: int | None = None  # refuse a model with more
    keep: frozenset[str] = frozenset()  # repositories that are not deleted to make room (see ``_make_room``)


UNLIMITED = DownloadOptions()


def fetch_model(hub_id: str, download: DownloadOptions = UNLIMITED) -> Path:
    """The folder with a model's files, as fetched now or kept from before.

    Raises:
        UserError: it cannot be had; the message tells why and what to do.
    """
    return _fetch(hub_id, MODEL_FILES, _IN_FOLDERS, download, check=partial(_check_model, hub_id))


def _check_model(hub_id: str, wanted: list) -> None:
    """Raises UserError if there are no weights to fetch. An adapter has none, but a file that tells of which model."""
    names = {file.filename for file in wanted}
    if "adapter_config.json" in names or any(name.endswith(".safetensors") for name in names):
        return
    what = f"The hub's repository {shown(hub_id)} has no weights in safetensors format (model*.safetensors)"
    there = [name for name in _listed(hub_id, None) if "/" not in name]
    if pickles := [name for name in there if name.startswith("pytorch_model") and name.endswith(".bin")]:
        raise UserError(
            f"{what}, but {pickles[0]}, a Python pickle; of models only safetensors are fetched. On your own machine "
            f"fetch it yourself, and name the folder as the model, where it is read as plain weights: hf download "
            f"{hub_id} --local-dir FOLDER"
        )
    others = [name for name in there if PurePosixPath(name).suffix in _OTHER_WEIGHTS]
    raise UserError(
        f"{what}{f', but {_some(others)}' if others else ''}. Use a model that ships model.safetensors; in other "
        "formats none is fetched."
    )


def fetch_sae_files(repo_id: str, files: Sequence[str], sae: str, download: DownloadOptions = UNLIMITED) -> Path:
    """The folder of a repository in the cache, with the files that match ``files`` in it.

    Args:
        sae: the name of the SAE that they are of, for messages.

    Raises:
        UserError: they cannot be had; the message tells why and what to do.
    """
    return _fetch(repo_id, files, (), replace(download, max_bytes=None), f" (for SAE {sae})")


def fetch_lens_file(repo_id: str, file: str, download: DownloadOptions = UNLIMITED) -> Path:
    """The folder of a repository in the cache, with a Jacobian lens' file in it.

    Raises:
        UserError: it cannot be had, or is larger than a lens; the message tells why and what to do.
    """

    def check(wanted: list) -> None:
        size = sum(one.file_size or 0 for one in wanted)
        if size > MAX_FOLDER_BYTES:
            raise UserError(f"{file} of {repo_id} is {size_shown(size)}; at most {size_shown(MAX_FOLDER_BYTES)} of a "
                            "Jacobian lens are fetched. Use a smaller model, or list by another measure.")

    limited = replace(download, max_bytes=None)
    return _fetch(repo_id, [glob.escape(file)], (), limited, " (for the Jacobian lens)", check=check)


def fetch_atlas(repo_id: str, download: DownloadOptions = UNLIMITED) -> Path:
    """The folder of a dataset repository in the cache, with the files of an atlas in it.

    Raises:
        UserError: they cannot be had, or the dataset is no atlas, or larger than one.
    """

    def check(wanted: list) -> None:
        names = [PurePosixPath(file.filename) for file in wanted]
        size = sum(file.file_size or 0 for file in wanted)
        if not {"atlas.json"} & {name.name for name in names} or not any(name.suffix == ".parquet" for name in names):
            raise UserError(f"The hub's dataset {shown(repo_id)} is no atlas: it has no atlas.json with Parquet files "
                            "beside it. Correct the name, or share one with `sae-multitool atlas … --push`.")
        if len(names) > MAX_ATLAS_FILES or size > MAX_ATLAS_BYTES:
            raise UserError(f"The hub's dataset {shown(repo_id)} holds {len(names)} files of {size_shown(size)}; of an "
                            f"atlas at most {MAX_ATLAS_FILES} and {size_shown(MAX_ATLAS_BYTES)} are fetched.")

    return _fetch(repo_id, ATLAS_FILES, (), replace(download, max_bytes=None), "", check=check, dataset=True)


def fetch_folder(
    repo_id: str, path: str, revision: str | None, sae: str, download: DownloadOptions = UNLIMITED
) -> Path:
    """A folder of a repository in the cache, with the files in it (not below it) that an SAE may have.

    And with the ``config.json`` above it, where sparsify tells the model.

    Args:
        path: of the folder in the repository; empty for its top. Anything but ``fnmatch``'s patterns.
        revision: a branch, a tag or a commit; None for the main branch.
        sae: the name of the SAE that they are of, for messages.

    Raises:
        UserError: they cannot be had, there are none, or more than an SAE has.
    """
    place = f"{glob.escape(path)}/" if path else ""
    above = [str(PurePosixPath(glob.escape(path)).parent / "config.json")] if path else []

    def check(wanted: list) -> None:
        wanted = [file for file in wanted if str(PurePosixPath(file.filename).parent) == (path or ".")]
        names = {PurePosixPath(file.filename).name for file in wanted}
        size = sum(file.file_size or 0 for file in wanted)
        if not names:
            raise UserError(_nothing_there(repo_id, path, revision, sae))
        if "cfg.json" not in names and names & {"tokenizer.json", "tokenizer_config.json"}:
            raise UserError(f"{sae} is a language model with its tokenizer, and no SAE. Name a model with --model.")
        if len(names) > MAX_FOLDER_FILES or size > MAX_FOLDER_BYTES:
            raise UserError(
                f"{sae} holds {len(names)} files of {size_shown(size)}; of an SAE's folder at most {MAX_FOLDER_FILES} "
                f"files and {size_shown(MAX_FOLDER_BYTES)} are fetched. Name the folder of one SAE, or download it and "
                "name the folder on this machine."
            )

    files, below = [place + file for file in FOLDER_FILES] + above, [place + "*/*"]
    return _fetch(repo_id, files, below, replace(download, max_bytes=None), "", revision, check) / path


def _nothing_there(repo_id: str, path: str, revision: str | None, sae: str) -> str:
    """Why a folder has none of an SAE's files, as far as the repository's other files tell it."""
    there = _listed(repo_id, revision)
    if path in there:
        return f"{sae} is a file. Name the folder that it is in."
    below = [file for file in there if not path or file.startswith(path + "/")]
    folders = sorted({str(PurePosixPath(file).parent) for file in below if _of_an_sae(file)})
    if folders:
        return f"{sae} holds no SAE itself; folders in it do: {_some(folders)}. Name one of them: hf://{repo_id}/…"
    if below:
        return f"{sae} has none of the files that an SAE has ({', '.join(FOLDER_FILES)}), but {_some(below)}."
    others = sorted({str(PurePosixPath(file).parent) for file in there if _of_an_sae(file)} - {"."})
    instead = f" Folders with such files there: {_some(others)}." if others else ""
    return f"The hub's repository {shown(repo_id)} has no folder {shown(path)}.{instead}"


def _listed(repo_id: str, revision: str | None) -> list[str]:
    """The files of a repository; of a huge one, many."""
    from huggingface_hub import HfApi

    listed = HfApi().list_repo_tree(repo_id, recursive=True, revision=revision)
    return [file.path for file in islice(listed, _LISTED) if hasattr(file, "size")]


def _of_an_sae(file: str) -> bool:
    return PurePosixPath(file).suffix in (".safetensors", ".npz") or PurePosixPath(file).name == "ae.pt"


def _some(names: Iterable[str]) -> str:
    return some((name if len(name) <= 100 else name[:100] + "…" for name in names), 5)


def may_read(hub_id: str) -> bool:
    """Whether the hub can be reached and lets us read this model, with the token that there is."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(hub_id)
    except Exception:  # whatever the reason, it is not to be had
        return False
    return True


def known_access(hub_id: str) -> bool | None:
    """Whether a gated model can be read, as far as that is known without asking the hub; None where it is not.

    It can where its files are here already, and cannot without a token.
    """
    from huggingface_hub import get_token, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
        return True
    return None if get_token() else False


def _fetch(
    repo_id: str, files: Sequence[str], not_files: Sequence[str], download: DownloadOptions, purpose: str = "",
    revision: str | None = None, check: Callable[[list], None] = lambda wanted: None, dataset: bool = False,
) -> Path:
    """The folder of a repository in the cache, with the files that match.

    Args:
        check: is given what is to be fetched, before it is, and may raise UserError.
        dataset: whether it is a dataset's repository, and no model's.
    """
    from huggingface_hub import HfApi, snapshot_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings are said in our messages
    options: dict[str, Any] = {"allow_patterns": list(files), "ignore_patterns": list(not_files)}
    options["repo_type"] = "dataset" if dataset else "model"
    with asking_hub(repo_id, purpose, dataset=dataset):
        options["revision"] = HfApi().resolve_revision(repo_id, repo_type=options["repo_type"], revision=revision)
        wanted = snapshot_download(repo_id, **options, dry_run=True, tqdm_class=_silent())
        check(wanted)
        missing = _checked_size(repo_id, wanted, download)
        bars = {"tqdm_class": _reporting(download.report, missing)} if download.report else {}
        folder = Path(snapshot_download(repo_id, **options, **bars))
    if not wanted:
        raise UserError(f"The hub's repository {shown(repo_id)}{purpose} has none of the files {', '.join(files)}.")
    return folder


def _checked_size(repo_id: str, wanted: list, download: DownloadOptions) -> int:
    """How many bytes are to be fetched. Before the first one: is it allowed to be so large, and is there room?"""
    from huggingface_hub.constants import HF_HUB_CACHE

    size = sum(file.file_size or 0 for file in wanted)
    if download.max_bytes is not None and size > download.max_bytes:
        raise UserError(
            f"{repo_id} is {size_shown(size)}; this server loads at most {size_shown(download.max_bytes)} "
            "(SAE_MULTITOOL_MAX_MODEL_GB). Choose an SAE of a smaller model, or run your own copy."
        )
    missing = sum(file.file_size or 0 for file in wanted if file.will_download)
    if missing and on_a_space():
        _make_room(missing, download.keep | {repo_id})
    free = _free(HF_HUB_CACHE)
    if missing > free:
        raise UserError(
            f"{repo_id} takes {size_shown(missing)} on disk, and {HF_HUB_CACHE} has {size_shown(free)} left. Make room "
            "there, or name a folder on a larger disk in HF_HOME."
        )
    return missing


def on_a_space(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this runs as a Space on the hub, whose disk is its own and is emptied at every start."""
    return bool(environment.get("SPACE_ID"))


def on_zero_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether its hardware is ZeroGPU, as ZeroGPU's own package and Gradio read it."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def _make_room(n_bytes: int, keep: frozenset[str]) -> None:
    """Delete from the cache what was used longest ago, until ``n_bytes`` fit."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import CacheNotFound

    with contextlib.suppress(CacheNotFound):
        cache = scan_cache_dir()
        for repo in sorted(cache.repos, key=lambda repo: repo.last_accessed):
            if _free(HF_HUB_CACHE) >= n_bytes:
                return
            if repo.repo_id not in keep:
                cache.delete_revisions(*(revision.commit_hash for revision in repo.revisions)).execute()


def _free(folder: str) -> int:
    """Bytes left on the disk of a folder that may not exist yet."""
    existing = next((path for path in (Path(folder), *Path(folder).parents) if path.exists()), None)
    # On a drive that Windows does not have, it is the writing that fails, and says so.
    return shutil.disk_usage(existing).free if existing else sys.maxsize


def _silent() -> type:
    from tqdm.auto import tqdm

    class Silent(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **(options | {"disable": True}))

    return Silent


def _reporting(report: Report, total: int) -> type:
    """A progress bar that draws nothing and reports the bytes that are there, of ``total``."""
    silent: Any = _silent()
    report(0, total)

    class Reporting(silent):
        furthest = 0

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self._counts_bytes = options.get("unit") == "B"

        def update(self, n=1):
            self.n += n or 0
            if self._counts_bytes:
                # Two bars count the same bytes: as they come in, and as they are written.
                Reporting.furthest = min(max(Reporting.furthest, int(self.n)), total)
                report(Reporting.furthest, total)

    return Reporting
