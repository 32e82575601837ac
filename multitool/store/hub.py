"""Files from the Hugging Face hub: fetched once with progress, and in plain words when they cannot be had.

Downloads go through huggingface_hub's own cache; the token is its own too (``HF_TOKEN`` or ``hf auth login``).
"""

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multitool.errors import UserError, shown, size_shown

Report = Callable[[int, int], None]  # bytes there, bytes in all

# A model's own files at the top of its repository: configuration, tokenizer, safetensors. No pickles, no code, and
# none of the copies in other formats that many repositories hold in folders beside them.
MODEL_FILES = ("*.json", "model*.safetensors", "tokenizer.model", "*.jinja", "merges.txt")
_IN_FOLDERS = ("*/*",)
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Terms:
    """On which terms something is fetched."""

    report: Report | None = None  # told of the progress; None: the hub's own bars on standard error
    max_bytes: int | None = None  # refuse a model with more
    keep: frozenset[str] = frozenset()  # repositories that are not deleted to make room (see ``_make_room``)


ANY_TERMS = Terms()


def fetch_model(hub_id: str, terms: Terms = ANY_TERMS) -> Path:
    """The folder with a model's files, as fetched now or kept from before.

    Raises:
        UserError: it cannot be had; the message tells why and what to do.
    """
    folder = _fetch(hub_id, MODEL_FILES, _IN_FOLDERS, terms)
    if not any(folder.glob("model*.safetensors")):
        raise UserError(
            f"The hub's repository {shown(hub_id)} has no weights in safetensors format; other formats can hold code "
            "and are not read. Use a model that ships model.safetensors."
        )
    return folder


def fetch_sae_files(repo_id: str, files: Sequence[str], sae: str, terms: Terms = ANY_TERMS) -> Path:
    """The folder of a repository in the cache, with the files that match ``files`` in it.

    Args:
        sae: the name of the SAE that they are of, for messages.

    Raises:
        UserError: they cannot be had; the message tells why and what to do.
    """
    return _fetch(repo_id, files, (), replace(terms, max_bytes=None), f" (for SAE {sae})")


def may_read(hub_id: str) -> bool:
    """Whether the hub can be reached and lets us read this model, with the token that there is."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(hub_id)
    except Exception:  # whatever the reason, it is not to be had
        return False
    return True


def _fetch(repo_id: str, files: Sequence[str], not_files: Sequence[str], terms: Terms, purpose: str = "") -> Path:
    from huggingface_hub import HfApi, snapshot_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings are said in our messages
    options = {"allow_patterns": list(files), "ignore_patterns": list(not_files)}
    try:
        options["revision"] = HfApi().resolve_revision(repo_id)
        wanted = snapshot_download(repo_id, **options, dry_run=True, tqdm_class=_silent())
        missing = _checked_size(repo_id, wanted, terms)
        bars = {"tqdm_class": _reporting(terms.report, missing)} if terms.report else {}
        folder = Path(snapshot_download(repo_id, **options, **bars))
    except UserError:
        raise
    except Exception as error:  # the hub's client lets through what its HTTP library raises
        raise problem(error, repo_id, purpose) from error
    if not wanted:
        raise UserError(f"The hub's repository {shown(repo_id)}{purpose} has none of the files {', '.join(files)}.")
    return folder


def _checked_size(repo_id: str, wanted: list, terms: Terms) -> int:
    """How many bytes are to be fetched. Before the first one: is it allowed to be so large, and is there room?"""
    from huggingface_hub.constants import HF_HUB_CACHE

    size = sum(file.file_size or 0 for file in wanted)
    if terms.max_bytes is not None and size > terms.max_bytes:
        raise UserError(
            f"{repo_id} is {size_shown(size)}; this server loads at most {size_shown(terms.max_bytes)} "
            "(SAE_MULTITOOL_MAX_MODEL_GB). Choose an SAE of a smaller model, or run your own copy."
        )
    missing = sum(file.file_size or 0 for file in wanted if file.will_download)
    if missing and on_a_space():
        _make_room(missing, terms.keep | {repo_id})
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
    existing = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    return shutil.disk_usage(existing).free


def problem(error: Exception, repo_id: str, purpose: str = "") -> UserError:
    """What went wrong between us and the hub, for a person: one cause, and what to do about it."""
    from huggingface_hub import get_token, is_offline_mode
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionResolutionError,
    )

    name = shown(repo_id) + purpose
    if isinstance(error, RevisionResolutionError) and error.__cause__ is not None:
        error = error.__cause__  # why the hub could not be asked
    status = getattr(getattr(error, "response", None), "status_code", None)
    own_copy = "In a Space its owner sets the token as the secret HF_TOKEN; elsewhere use HF_TOKEN or `hf auth login`."
    if isinstance(error, GatedRepoError):
        page = f"{_HUB}/{repo_id}"
        if get_token() is None:
            return UserError(
                f"{name} is gated, and there is no token. Accept its licence at {page} and set a token that may "
                f"read it. {own_copy}"
            )
        return UserError(
            f"{name} is gated, and the token that is set may not read it. Accept the licence at {page} with the "
            f"token's account; a fine-grained token also needs the right to read gated repositories. {own_copy}"
        )
    # Tokens go into a header, which holds ASCII only.
    if (status == 401 and get_token() is not None) or isinstance(error, UnicodeEncodeError):
        return UserError(
            f"The hub refuses the token that is set, or there is no {name}. Make a new token at "
            f"{_HUB}/settings/tokens, or correct the name. {own_copy}"
        )
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return UserError(f"The hub has no {name} that is public. Correct the name, or set a token that may read it.")
    if isinstance(error, IncompleteSnapshotError):
        return UserError(
            f"Only a part of {name} was fetched before, and the hub cannot be reached now. Check the network and try "
            "again."
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        found = re.search(r"/resolve/[^/]+/([^?]+)", str(getattr(error, "response", None) and error.response.url))
        file = found[1] if found else "A file that is needed"
        return UserError(f"{file} of {name} is not in its repository on the hub. Use another one, or tell its owner.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"The disk is full: {name} could not be stored. Make room, or name a folder on a larger disk in HF_HOME."
        )
    if isinstance(error, OSError) and error.filename is not None:  # ours: the network's errors name no file
        return UserError(
            f"{name} could not be stored: {error.strerror}: {error.filename}. Name a folder that you may write to in "
            "HF_HOME."
        )
    if isinstance(error, HfHubHTTPError) and status is not None:
        return UserError(f"The hub answered {status} for {name}. Try again in a while; if it stays, see {_HUB}/status.")
    offline = " (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
    return UserError(
        f"{name} could not be fetched: the hub cannot be reached, or the connection broke off{offline}. Check the "
        "network and try again; whole files that have arrived are kept. The demo (demo/…) needs no hub. "
        f"[{_words(error)}]"
    )


def _words(error: Exception) -> str:
    """The error's own text: short, in one line, without anything that looks like a token."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"hf_\w+", "hf_…", text)[:200]


def _silent() -> type:
    from tqdm.auto import tqdm

    class Silent(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **(options | {"disable": True}))

    return Silent


def _reporting(report: Report, total: int) -> type:
    """A progress bar that draws nothing and reports the bytes that are there, of ``total``."""
    silent = _silent()
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
