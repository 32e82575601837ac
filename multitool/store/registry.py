"""Which SAEs there are and which of them the tool can serve: by name, by search, by an operator's limit.

Three sources: the local models' SAEs in this package, folders that the operator names, and the registry that sae-lens
ships. Nothing of these is downloaded here. Where folders may be named, so may any repository on the hub (``hub_saes``).
"""

import difflib
import os
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from multitool.errors import UserError, shown, some
from multitool.recipes.fields import check
from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS, DemoModel, terms_of
from multitool.store.entries import SaeEntry
from multitool.store.folders import HOOKS, folder_and_hook, folder_sae, folder_state, is_file, is_folder, is_path
from multitool.store.hub import UNLIMITED, DownloadOptions, on_a_space
from multitool.store.hub_saes import HUB_PREFIX, hub_and_hook, hub_sae, is_hub_place
from multitool.store.registry_file import registry_saes
from multitool.store.terms import Terms

LONGEST_SEARCH = 1000  # characters
LOCAL_SAES_VARIABLE = "SAE_MULTITOOL_SAES"
_LONGEST_COMPARED = 200  # characters of a name that is none: the time goes with their square

_NO_REPOSITORY = (
    "{name} is not served here. SAEs of any repository on the hub are for the command line, and for Python with "
    "allow_folder=True. Name one as RELEASE/SAE_ID; `saes` lists them all."
)
_NEAR = 0.75  # how alike two releases' names are, as difflib says, where one may be meant for the other

_KIND_IN_WORDS = {
    "mlp_out": "the output of an MLP layer",
    "attn_out": "the output of an attention layer",
    "attn_z": "attention heads before their output projection",
    "transcoder": "one place to predict another (a transcoder)",
    "mlp": "a place inside an MLP layer",
    "attention": "a place inside an attention layer",
    "inside": "a place inside a layer, between its parts",
    "crosscoder": "several places at once (a crosscoder)",
    "unknown": "a place in the model that its name does not tell",
}


def saes(search: str = "", patterns: tuple[str, ...] = ()) -> list[SaeEntry]:
    """The SAEs that can be served: the demo's, the operator's, the registry's. Nothing is fetched.

    >>> [sae.name for sae in mt.saes("gemma-2b-res-jb blocks.6")]
    ['gemma-2b-res-jb/blocks.6.hook_resid_post']

    Args:
        search: words that must all occur, in any order and case, in the SAE's name, its model's or its hook's, or in
            ``layer 12``, ``width 16384``, ``16k``, ``l0 82``; of a number, all of its digits.
        patterns: the operator's limit, see ``allowed``.

    Raises:
        UserError: ``search`` is no text, or longer than any name.
    """
    asked = check(search, "search", Annotated[str, Field(max_length=LONGEST_SEARCH)]).lower()
    words = re.findall(r"(?:layer|width|l0) \d+(?=\s|$)|\S+", asked)
    entries = (*local_saes(), *operator_saes(), *registry_saes().values())
    return [entry for entry in entries if entry.served and allowed(entry, patterns) and _mentions(entry, words)]


def _mentions(entry: SaeEntry, words: list[str]) -> bool:
    text = entry.told
    return all(
        word in text and (not word[-1].isdecimal() or _whole_number(word).search(text)) for word in words
    )


@lru_cache(maxsize=64)
def _whole_number(word: str) -> re.Pattern:
    """Where a word stands that is a number or ends with one, and no other digits beside it."""
    before = r"(?<!\d)" if word[0].isdecimal() else ""
    return re.compile(rf"{before}{re.escape(word)}(?!\d)")


def models(patterns: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The models that have SAEs to serve: the demo's, the other local ones, then the rest by name.

    Args:
        patterns: the operator's limit, see ``allowed``.
    """
    others = {entry.model for entry in saes(patterns=patterns)} - {"", DEMO_MODEL}
    return (DEMO_MODEL, *sorted(others, key=lambda name: (name not in DEMO_MODELS, name.lower())))


def allowed(entry: SaeEntry, patterns: tuple[str, ...]) -> bool:
    """Whether an operator who serves only ``patterns`` serves this SAE. Those on this machine always are, but on a
    Space for those of a model whose terms its operator has not accepted: nobody else there can.

    Args:
        patterns: each a release, a name, a pattern of names (``gemma-scope-2b-*/layer_1[0-9]/*``), or ``model:`` and
            the same of the model's hub id (``model:google/gemma-2b``). None at all allows everything.
    """
    if _awaits_operator(entry):
        return False
    return not patterns or entry.folder is not None or any(_matches(entry, pattern) for pattern in patterns)


def _awaits_operator(entry: SaeEntry) -> Terms | None:
    """The terms of an SAE's model that the operator of this Space would have to accept first."""
    terms = terms_of(entry.model)
    return terms if terms and on_a_space() and not terms.accepted else None


def _matches(entry: SaeEntry, pattern: str) -> bool:
    if pattern.startswith("model:"):
        return fnmatchcase(entry.model, pattern.removeprefix("model:"))
    return pattern in (entry.release, entry.name) or fnmatchcase(entry.name, pattern)


def find_sae(
    name: str, *, hook: str | None = None, allow_folder: bool = False, patterns: tuple[str, ...] = (),
    download: DownloadOptions = UNLIMITED,
) -> SaeEntry:
    """The SAE of that name.

    >>> sae = mt.find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post")
    >>> sae.model, sae.layer, sae.gated
    ('google/gemma-2b', 6, True)

    Args:
        name: ``RELEASE/SAE_ID``, or a folder, or ``FOLDER@HOOK`` where its files do not say at which hook it reads.
        hook: the same, given apart.
        allow_folder: whether ``name`` may be a folder on this machine, or one of any repository on the hub as
            ``hf://OWNER/REPO/PATH``, which is fetched (never for what comes from a web page).
        patterns: the operator's limit, see ``allowed``.
        download: how it is fetched, where that is needed to know what it is.

    Raises:
        UserError: there is none of that name (near matches are listed), it is not on the residual stream, it is not
            among what the operator serves, or it cannot be fetched.
    """
    if name.startswith(HUB_PREFIX):
        if not allow_folder:
            raise UserError(_NO_REPOSITORY.format(name=shown(name)))
        place, told = hub_and_hook(name)
        # The registry corrects what some files say, and knows the formats of others.
        known = None if hook or told else _of_repository(place.removeprefix(HUB_PREFIX))
        return _served(known or hub_sae(place, download, hook or told), patterns)
    near_by = {entry.name: entry for entry in (*local_saes(), *operator_saes())}
    folder, told = folder_and_hook(name) if allow_folder else (name, None)
    named, _, apart = name.rpartition("@")
    hook = hook or told
    entry = near_by.get(name)
    if entry is None and allow_folder and is_folder(folder):
        entry, hook = folder_sae(Path(folder), hook=hook), None
    if entry is None and allow_folder and is_file(folder):
        raise UserError(f"{shown(folder)} is a file. Name the folder that it lies in, with the other files of its SAE.")
    if entry is None and allow_folder and is_path(folder):
        place = shown(folder).replace("\\\\", "\\")  # backslashes as they were written
        raise UserError(f"There is no folder {place}. Name one that holds an SAE, or an SAE as RELEASE/SAE_ID.")
    if entry is None:
        entry = registry_saes().get(name)
    known = entry or near_by.get(named) or registry_saes().get(named)
    if known and (hook or entry is None):
        raise UserError(
            f"hook is {shown(hook or apart)}, and SAE {known.name} says itself where it reads ({known.hook}). A hook "
            "is given only with a folder whose files name none: leave it out."
        )
    if entry is None:
        raise UserError(_unknown(name, allow_folder, patterns))
    _served(entry, patterns)
    if not allowed(entry, patterns):
        raise UserError(_not_allowed(entry, patterns))
    return entry


def local_saes() -> tuple[SaeEntry, ...]:
    """The SAEs in this package, by model."""
    return tuple(entry for model in DEMO_MODELS for entry in demo_saes(model))


def demo_saes(model: str = DEMO_MODEL) -> tuple[SaeEntry, ...]:
    """The SAEs of a local model in this package, the embedding's first, then by layer."""
    return _shipped(DEMO_MODELS[model])


@cache
def _shipped(model: DemoModel) -> tuple[SaeEntry, ...]:
    entries = [folder_sae(cfg.parent, release="demo", model=model.name) for cfg in model.saes.glob("*/cfg.json")]
    entries.sort(key=lambda entry: -1 if entry.layer is None else entry.layer)
    return tuple(replace(entry, sae_id=model.prefix + entry.sae_id) for entry in entries)


def operator_saes() -> tuple[SaeEntry, ...]:
    """The folders in ``$SAE_MULTITOOL_SAES`` (separated like ``$PATH``), served as ``local/FOLDER_NAME``.

    ``FOLDER@HOOK`` says where one reads whose files do not.

    Raises:
        UserError: one of them is no SAE folder, or two have the same name.
    """
    named = [folder_and_hook(part) for part in os.environ.get(LOCAL_SAES_VARIABLE, "").split(os.pathsep) if part]
    entries = tuple(_operator_sae(Path(folder).resolve(), hook) for folder, hook in named)
    if len({entry.name for entry in entries}) < len(entries):
        raise UserError(
            f"Two folders in {LOCAL_SAES_VARIABLE} have the same last name, by which a visitor would choose them. "
            "Rename one."
        )
    return entries


def _operator_sae(folder: Path, hook: str | None) -> SaeEntry:
    return _operator_sae_as_of(folder, hook, folder_state(folder, folder.parent / "config.json"))


@lru_cache(maxsize=1024)
def _operator_sae_as_of(folder: Path, hook: str | None, stamp: tuple) -> SaeEntry:
    """The folder's SAE, read again only where one of its files has changed: every list of SAEs asks for it."""
    return folder_sae(folder, hook=hook)


def _unknown(name: str, allow_folder: bool, patterns: tuple[str, ...]) -> str:
    release, _, sae_id = name.partition("/")
    everything = [entry.name for entry in saes(patterns=patterns)]
    same_release = [other for other in everything if other.startswith(release + "/")] if release else []
    if same_release:
        ids = {other: other.partition("/")[2] for other in same_release}
        near = difflib.get_close_matches(sae_id[:_LONGEST_COMPARED], ids.values(), n=5, cutoff=0)
        near = near or list(ids.values())[:5]
        hint = f"Release {release} has {', '.join(near)}" + (" and others" if len(ids) > len(near) else "")
    elif in_registry := _of_repository(name):
        hint = f"The SAE in that repository is {in_registry.name}"
    else:
        releases = sorted({other.partition("/")[0] for other in everything})
        near = difflib.get_close_matches(release[:_LONGEST_COMPARED], releases, n=5, cutoff=_NEAR)
        hint = f"Near releases: {', '.join(near)}" if near else ""
        if allow_folder and not near and is_hub_place(HUB_PREFIX + name):
            hint = f"If it is in a repository on the hub: {HUB_PREFIX}{name}, or download it and name the folder"
    folder = f", an SAE's folder, or {HUB_PREFIX}OWNER/REPO/PATH" if allow_folder else ""
    hint += "; " if hint else ""
    return f"There is no SAE {shown(name)}. Name one as RELEASE/SAE_ID{folder}. {hint}`saes` lists them all."


def _of_repository(name: str) -> SaeEntry | None:
    """The registry's SAE in a folder of a repository on the hub, ``OWNER/REPO/PATH``, if there is one."""
    return next((entry for entry in registry_saes().values() if f"{entry.repo_id}/{entry.path}" == name), None)


def _served(entry: SaeEntry, patterns: tuple[str, ...]) -> SaeEntry:
    if not entry.served:
        raise UserError(_not_served(entry, patterns))
    return entry


def _not_served(entry: SaeEntry, patterns: tuple[str, ...]) -> str:
    if entry.folder and entry.kind == "unknown":
        if entry.hook_told:
            said = f"The hook of SAE {entry.name} is {shown(entry.hook_told)} ({entry.told_by}), which is not known."
        else:
            said = f"The files of SAE {entry.name} do not say at which place of a model it reads ({entry.told_by})."
        return f"{said} Name it with --hook (in Python hook=), or in that file as hook_name: {HOOKS}."
    reason = _KIND_IN_WORDS.get(entry.kind, entry.kind)
    if entry.hook_told and entry.kind not in ("transcoder", "crosscoder"):
        reason += f" ({shown(entry.hook_told)})"
    same_model = sorted({other.release for other in saes(patterns=patterns) if other.model == entry.model})
    instead = f" Residual releases for {entry.model}: {some(same_model, 8)}." if same_model else ""
    return (
        f"SAE {entry.name} was trained on {reason}, not on the residual stream of {entry.model or 'a model'}, so its "
        f"features' directions say nothing about token embeddings.{instead}"
    )


def _not_allowed(entry: SaeEntry, patterns: tuple[str, ...]) -> str:
    if terms := _awaits_operator(entry):
        return (
            f"SAE {entry.name} is not served here: its model is used under the {terms.title} ({terms.page}), which the "
            f"operator of this Space has not accepted. The operator does so by setting {terms.variable} to 1."
        )
    return (
        f"SAE {entry.name} is not served here: besides the demo, this server serves only {some(patterns, 8)}. A copy "
        "of this tool on your own machine serves them all."
    )
