"""Exceptions of other libraries while things are fetched, read and stored, as messages for the user.

One table per kind of work. Each row has a condition (exception classes or a test) and a message, a further table, or
None if a caller reports the error better. The first row that holds counts. UserErrors pass unchanged, and so do
exceptions that no row knows.
"""

import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.request import getproxies

from safetensors import SafetensorError, safe_open

from multitool.errors import UserError, shown
from multitool.store.entries import SaeEntry

HUB = "https://huggingface.co"

_When = type[Exception] | tuple[type[Exception], ...] | Callable[[Any], bool]
Cases = tuple[tuple[_When, Any], ...]  # Any: str, None or Cases


@contextmanager
def said(cases: Cases, **names) -> Iterator[None]:
    """Translates exceptions raised in the block into the message that ``cases`` has for them.

    Args:
        names: what the sentences' placeholders stand for, besides those about the error itself (``_about``).

    Raises:
        UserError: one of the cases holds.
    """
    try:
        yield
    except Exception as error:
        sentence = None if isinstance(error, UserError) else _sentence(error, cases)
        if sentence is None:
            raise
        raise UserError(sentence.format(**_about(error), **names)) from error


def _sentence(error: Exception, cases: Cases) -> str | None:
    for when, what in cases:
        if isinstance(error, when) if isinstance(when, (type, tuple)) else when(error):
            return _sentence(error, what) if isinstance(what, tuple) else what
    return None


def _about(error: Any) -> dict[str, object]:
    text = " ".join(str(error).split())
    return {
        "error": error,
        "text": text[:300],
        # Short, with its class, and without anything that looks like a token.
        "words": re.sub(r"hf_\w+", "hf_…", f"{type(error).__name__}: {text}")[:200],
        # Of an error of the system: what is wrong, without its number, and the file.
        "reason": getattr(error, "strerror", None) or error,
        "path": getattr(error, "filename", None),
        # Of an answer of the hub.
        "status": _status(error),
        "asked": _asked(error),
    }


def _asked(error: Any) -> str:
    """The file that the hub was asked for."""
    found = None
    with suppress(AttributeError, RuntimeError):  # no answer, or one of no request
        found = re.search(r"/resolve/[^/]+/([^?]+)", str(error.response.url))
    return found[1] if found else "A file that is needed"


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


# Memory


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory does not suffice, as PyTorch and the system say it."""
    import torch

    # The last one: what cuBLAS takes for itself, past PyTorch's allocator.
    allocator = any(words in str(error) for words in ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED"))
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or allocator


# Disks


def full_disk(error: BaseException | None) -> bool:
    """Whether an error, or its cause, says that a disk is full: by its number, or as libraries say it in words."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return error is not None and (says_full(str(error)) or full_disk(error.__cause__))


def says_full(text: str) -> bool:
    """Whether a text has the words of Unix or Windows for a full disk, or their numbers."""
    words = r"no space left|not enough space on the disk|disk quota exceeded"
    numbers = r"errno 28\b|os error (28|112)\b|winerror 112\b"
    return re.search(f"{words}|{numbers}", text, re.IGNORECASE) is not None


# A running model at a task.
WORKING: Cases = ((out_of_memory,
    "Out of memory while {model} worked ({device}). Ask for fewer nodes (max_nodes), a larger cutoff, or a smaller "
    "model."),)
# An SAE.
HOLDING: Cases = ((out_of_memory, "SAE {sae} does not fit into the memory. Choose a smaller one."),)


# Files

READING_CFG: Cases = ((FileNotFoundError, "{file} is missing."), ((OSError, ValueError, RecursionError),
    "{file} cannot be read ({reason}). An SAE folder in sae-lens format holds cfg.json and sae_weights.safetensors, as "
    "sae.save_model() writes them."),)
_MISSING: Cases = ((FileNotFoundError, "{file} is missing."),)
READING_WEIGHTS: Cases = (
    (out_of_memory, None),
    *_MISSING,
    (lambda error: isinstance(error, SafetensorError) and "not fully covered" in str(error),
     "{file} is cut short: it ends before the last of the tensors that it lists. Copy or write it again."),
    (SafetensorError, "{file} cannot be read as safetensors ({error}). It is another kind of file, or cut short or "
     "damaged at its beginning."),
    (OSError, "{file} cannot be read ({error})."),
)
READING_NPZ: Cases = (
    (out_of_memory, None),
    *_MISSING,
    (OSError, "{file} cannot be read ({reason})."),
    # A cut zip file has lost the list at its end, and reads as if it were none.
    (Exception, "{file} cannot be read as npz ({words}). It is another kind of file, or cut short or damaged."),
)
READING_PICKLE: Cases = (
    (out_of_memory, None),
    *_MISSING,
    (OSError, "{file} cannot be read ({reason})."),
    (UnpicklingError, "{file} is a pickle that holds more than plain weights, or none, and was not read: such a file "
     "can run code. PyTorch says: {words}"),
    (Exception, "{file} cannot be read by torch.load ({words}). It is another kind of file, or cut short or damaged."),
)
# pyarrow raises its own errors as ValueError, OSError, KeyError and others.
READING_ATLAS: Cases = (
    (out_of_memory, None),
    *_MISSING,
    (Exception, "{file} cannot be read as a table of an atlas ({words}). It is another kind of file, or cut short or "
     "damaged: copy, fetch or make it again."),
)
# Whatever writes it: the tokenizer's library raises plain exceptions.
STORING_DEMO_MODEL: Cases = (
    (full_disk,
     "The disk is full: the model {model} cannot be stored in {folder}. Make room there (about {room}), or name "
     "another folder in SAE_MULTITOOL_CACHE. [{words}]"),
    ((OSError, SafetensorError),
     "The model {model} cannot be stored in {folder}: {reason}. It takes a folder that you may write to; name "
     "another one in SAE_MULTITOOL_CACHE."),
)
STORING_ACCEPTANCE: Cases = ((OSError,
    "That you accept the terms cannot be remembered in {folder}: {reason}. Name a folder that you may write to in "
    "SAE_MULTITOOL_CACHE."),)
STORING_ROWS: Cases = ((OSError,
    "The {what} cannot be stored in {folder}: {reason}. Make room or permissions there (about "
    "{size}), or name another folder in SAE_MULTITOOL_CACHE."),)

# Atlases

STORING_ATLAS: Cases = (
    (full_disk, "The disk is full: the atlas in {folder} cannot be written. Make room there and ask for the same "
     "again: its whole parts are kept."),
    ((FileExistsError, NotADirectoryError), "{folder} cannot be an atlas' folder: {reason}. Name a new folder."),
    (ValueError, "{folder} cannot be the name of a folder ({reason}). Name another one."),
    (NotImplementedError, "{folder} lies on a disk on which files cannot be locked. Name a folder on another one."),
    (OSError, "The atlas cannot be written to {folder}: {reason}. Name a folder that you may write to."),
)
READING_PLAN: Cases = (((OSError, ValueError, RecursionError),
    "{file} cannot be read ({reason}). It tells what the atlas in its folder is of. Name another folder, or delete "
    "that file to have it written anew: parts of what is asked for are kept."),)
READING_PART: Cases = ((Exception,
    "{file} cannot be read ({words}). Delete it and ask for the same atlas again, which makes it anew."),)


def refuse_pointer(path: Path) -> None:
    """Raises UserError if a file only points to what Git LFS keeps: what ``git clone`` leaves where LFS is missing."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs.github.com/spec/"):
            raise UserError(
                f"{path} is only a pointer to a file that Git LFS keeps, which was not fetched. Run `git lfs pull` in "
                "that folder, or fetch the repository with `hf download`."
            )


FETCH_AGAIN = "A file may be damaged; delete {kept} to have it fetched again."

_OWN_CODE = (lambda error: "trust_remote_code" in str(error),
    "The model {model} takes code that it brings itself, and no such code is run here. Use a model that transformers "
    "has the code of.")
# A damaged folder makes transformers raise nearly anything; so does much else.
_LOCAL_MODEL: Cases = (_OWN_CODE, (Exception,
    "The model in folder {folder} cannot be loaded: {text} A model folder holds config.json, the tokenizer's files and "
    "*.safetensors, as save_pretrained() writes them."),)
_FETCHED_MODEL: Cases = (
    _OWN_CODE, (Exception, "The model {model} was fetched, and transformers cannot load it: {words}"))
_DAMAGED = "cannot be loaded: its {file} is damaged or cut short ({why}); "
_DAMAGED_LOCALLY = "The model in folder {folder} " + _DAMAGED + "copy or write it again."
_DAMAGED_FETCHED = "The model {model} " + _DAMAGED + "delete {kept} to have it fetched again."


@contextmanager
def loading_model(name: str, folder: Path, running_as: str = "") -> Iterator[None]:
    """A model's files, which transformers reads.

    Args:
        running_as: device and precision, where the whole model is loaded.

    Raises:
        UserError: the block raised anything. That a file is damaged is said only where its format tells it.
    """
    memory = "Model {model} does not fit into the memory. Choose a smaller model."
    if running_as:
        memory = (
            "Model {model} does not fit into the memory ({running_as}). Choose a smaller model, or load it in half "
            "precision (--dtype bfloat16, SAE_MULTITOOL_DTYPE=bfloat16)."
        )
    # In the hub's cache the folder has links to the files, which lie beside it: they must go with it.
    kept = folder.parents[1] if folder.parent.name == "snapshots" else folder
    names: dict[str, object] = {"model": shown(name), "folder": folder, "kept": kept, "running_as": running_as}
    cases = _LOCAL_MODEL if Path(name) == folder else _FETCHED_MODEL
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError) and not out_of_memory(error) and (found := damaged_file(folder)):
            names |= {"file": found[0].name, "why": found[1]}
            cases = ((Exception, _DAMAGED_LOCALLY if Path(name) == folder else _DAMAGED_FETCHED),)
        with said(((out_of_memory, memory), *cases), **names):
            raise


def damaged_file(folder: Path) -> tuple[Path, str] | None:
    """A file of a model folder that is surely damaged or cut short, as its format tells, and what tells it."""
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            return path, f"{type(error).__name__}: {error}"[:150]
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            return path, f"{error}"[:150]
    return None


# By method, what pip installs to read such weights.
_QUANTISED_WITH = {
    "bitsandbytes": "bitsandbytes", "gptq": "gptqmodel optimum", "awq": "gptqmodel", "aqlm": "aqlm", "hqq": "hqq",
    "compressed-tensors": "compressed-tensors", "torchao": "torchao", "quanto": "optimum-quanto", "eetq": "eetq",
    "auto-round": "auto-round", "vptq": "vptq", "fbgemm_fp8": "fbgemm-gpu-genai",
}  # fmt: skip


@contextmanager
def loading_quantised(whose: str, method: str | None) -> Iterator[None]:
    """Weights that were quantised, by a method that transformers names; None where they were not.

    Raises:
        UserError: the block raised something but UserError.
    """
    if method is None:
        yield
        return
    instead = "Or use the model that it was made from, not quantised."
    install = f": pip install {_QUANTISED_WITH[method]}" if method in _QUANTISED_WITH else ""
    said_by = f"{whose} is quantised ({method}), "
    cases: Cases = (
        (out_of_memory, None),
        (ImportError, "{said_by}which takes a package that is not installed or too old{install}. {instead} [{words}]"),
        (Exception, "{said_by}and transformers cannot load it with what there is here. {instead} [{words}]"),
    )
    with said(cases, said_by=said_by, install=install, instead=instead):
        yield


# sae-lens, of which each loader raises in its own way

_LOCAL_BY_SAE_LENS: Cases = (
    (out_of_memory, None),
    (Exception,
     "sae-lens cannot read the SAE in {folder}: {words} Its configuration and its weights may not fit together. "
     "Without sae-lens its activations are not read; its directions may be."),
)


def reading_by_sae_lens(entry: SaeEntry, folder: Path) -> AbstractContextManager[None]:
    """An SAE's files, which sae-lens reads.

    Args:
        folder: the SAE's own, or that of the repository that was fetched.
    """
    if entry.folder or not entry.repo_id:
        return said(_LOCAL_BY_SAE_LENS, folder=folder)
    return said(_fetched_by_sae_lens(), sae=entry.name, kept=folder.parents[1], **_names_of_repository(entry.repo_id))


@cache
def _fetched_by_sae_lens() -> Cases:
    return (
        (out_of_memory, None),
        (UnpicklingError,
         "SAE {sae} is kept in a pickle that is damaged or holds more than plain weights, and was not read: such a "
         "file can run code. Use another SAE, or delete {kept} to have it fetched again."),
        # The loaders ask the hub whether a file has changed.
        (_also(OSError, lambda error: error.errno != errno.ENOENT), _hub()),
        (Exception, "SAE {sae} was fetched, but sae-lens cannot read it: {words} " + FETCH_AGAIN),
    )


# The hub


@contextmanager
def asking_hub(repo_id: str, purpose: str = "", *, dataset: bool = False) -> Iterator[None]:
    """The hub's client, which lets through what its HTTP library raises."""
    from huggingface_hub.errors import RevisionResolutionError

    with said(_hub(), **_names_of_repository(repo_id, purpose, dataset)):
        try:
            yield
        except RevisionResolutionError as error:
            raise error.__cause__ or error  # noqa: B904  # why the hub could not be asked


@contextmanager
def sharing_on_hub(repo_id: str) -> Iterator[None]:
    """The hub's client at uploads, which lets through what its HTTP library raises."""
    with said(_sharing(), **_names_of_repository(repo_id, dataset=True), owner=shown(repo_id.partition("/")[0])):
        yield


def _names_of_repository(repo_id: str, purpose: str = "", dataset: bool = False) -> dict[str, str]:
    from huggingface_hub import is_offline_mode
    from huggingface_hub.constants import ENDPOINT

    offline = " (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
    proxied = any(getproxies().get(kind) for kind in ("http", "https", "all"))
    mirror = ENDPOINT != HUB
    return {
        "name": shown(repo_id) + purpose, "offline": offline,
        "page": f"{HUB}/{'datasets/' if dataset else ''}{repo_id}",
        # Who was asked, and what to look at where the answer is no good.
        "hub": f"the hub's mirror {_without_user(ENDPOINT)} (HF_ENDPOINT)" if mirror else "the hub",
        "state": f"unset HF_ENDPOINT to ask {HUB} itself" if mirror else f"see {HUB}/status",
        "network": "the network and the proxy that is set (HTTPS_PROXY, ALL_PROXY)" if proxied else "the network",
    }


def _without_user(url: str) -> str:
    """An address without the name and password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def _also(kind: type[Exception], test: Callable[[Any], bool]) -> _When:
    return lambda error: isinstance(error, kind) and test(error)


@cache
def _hub() -> Cases:
    """For each thing that goes wrong between us and the hub: one cause, and what to do about it."""
    from huggingface_hub import errors, get_token

    token = " In a Space its owner sets the token as the secret HF_TOKEN; elsewhere use HF_TOKEN or `hf auth login`."
    refused = (
        "The hub refuses the token that is set, or there is no {name}. Make a new token at "
        f"{HUB}/settings/tokens, or correct the name.{token}"
    )
    return (
        (_also(errors.GatedRepoError, lambda error: get_token() is None),
         "{name} is gated, and there is no token. Accept its licence at {page} and set a token that may read it."
         + token),
        (errors.GatedRepoError,
         "{name} is gated, and the token that is set may not read it. Accept the licence at {page} with the token's "
         "account; a fine-grained token also needs the right to read gated repositories." + token),
        (_also(Exception, lambda error: _status(error) == 401 and get_token() is not None), refused),
        (UnicodeEncodeError, refused),  # tokens go into a header, which holds ASCII only
        (errors.HFValidationError, "{name} cannot be a repository of the hub: {text} Correct the name."),
        (errors.RevisionNotFoundError,
         "The hub's repository {name} has no such revision. Behind the @ stands a branch, a tag or a commit."),
        (errors.RepositoryNotFoundError,
         "The hub has no {name} that is public. Correct the name, or set a token that may read it."),
        (errors.IncompleteSnapshotError,
         "Only a part of {name} was fetched before, and the hub cannot be reached now. Check the network and try "
         "again."),
        (_also(errors.EntryNotFoundError, lambda error: not isinstance(error, errors.LocalEntryNotFoundError)),
         "{asked} of {name} is not in its repository on {hub}. Use another one, or tell its owner."),
        (full_disk,
         "The disk is full: {name} could not be stored. Make room, or name a folder on a larger disk in HF_HOME."),
        (_also(RuntimeError, lambda error: "home directory" in str(error)),
         "{name} could not be stored: this user has no home folder. Name a folder in HF_HOME."),
        # Ours: the network's errors name no file.
        (_also(OSError, lambda error: error.filename is not None),
         "{name} could not be stored: {reason}: {path}. Name a folder that you may write to in HF_HOME."),
        (_also(errors.HfHubHTTPError, lambda error: _status(error) is not None),
         "{name} could not be fetched: {hub} answered {status}. Try again in a while; if it stays, {state}."),
        (lambda error: isinstance(error.__cause__ or error, errors.FileMetadataError) or "redirects" in str(error),
         "{name} could not be fetched: {hub} answers without what tells the files' revision, or sends from one address "
         "to the next. If it stays, {state}. [{words}]"),
        (Exception,
         "{name} could not be fetched: {hub} cannot be reached, or the connection broke off{offline}. Check {network} "
         "and try again; whole files that have arrived are kept. The demo (demo/…) needs no hub. [{words}]"),
    )


@cache
def _sharing() -> Cases:
    """The same for uploads."""
    from huggingface_hub import errors

    return (
        (_also(Exception, lambda error: _status(error) == 401),
         "The hub refuses the token that is set. Make a new one that may write at " + HUB + "/settings/tokens, and run "
         "`hf auth login` or set HF_TOKEN."),
        (_also(Exception, lambda error: _status(error) == 403),
         "The token that is set may not write to {name}. {owner} must be its account or an organisation of it, and the "
         "token one with the right to write. [{words}]"),
        (UnicodeEncodeError, "The token that is set is none: it has other characters than ASCII. Correct HF_TOKEN."),
        (errors.HFValidationError, "{name} cannot be a repository of the hub: {text} Correct the name."),
        (_also(ValueError, lambda error: "Invalid metadata" in str(error)),
         "The hub does not take the card of {name}: {text} Correct the licence, if one was named."),
        (full_disk, "The disk is full: {name} could not be uploaded. Make room, or name a folder on a larger disk in "
         "HF_HOME."),
        (_also(errors.HfHubHTTPError, lambda error: _status(error) is not None),
         "{name} could not be uploaded: {hub} answered {status}. Try again in a while; if it stays, {state}. "
         "[{words}]"),
        (_also(OSError, lambda error: error.filename is not None), "{name} could not be uploaded: {reason}: {path}."),
        (Exception,
         "{name} could not be uploaded: {hub} cannot be reached, or the connection broke off{offline}. Check {network} "
         "and try again; what has arrived is not sent again. [{words}]"),
    )
