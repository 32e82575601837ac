"""SAEs of any repository on the hub, named ``hf://OWNER/REPO/PATH``: fetched, then read as the folder that they are.

For the command line and for Python, as folders of this machine are; never for names that come from a web page.
"""

import re
from dataclasses import dataclass, replace

from multitool.errors import UserError, shown
from multitool.store.entries import SaeEntry, parse_hook
from multitool.store.folders import folder_sae, with_hook
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_folder

HUB_PREFIX = "hf://"
_WORD = r"[A-Za-z0-9_][\w.-]{0,95}"  # of an owner, a repository, a branch
_NAME = re.compile(rf"hf://({_WORD})/({_WORD})(?:@({_WORD}))?(?:/(.*))?", re.ASCII | re.DOTALL)
_PART = re.compile(r"[^\\*?\[\]\x00-\x1f\x7f]{1,200}")  # of a path: no pattern, no other system's path


@dataclass(frozen=True)
class HubPlace:
    """A folder of a repository on the hub."""

    repo_id: str
    path: str  # of the folder in it; empty for its top
    revision: str | None = None  # a branch, a tag or a commit; None: its main branch

    @property
    def name(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{HUB_PREFIX}{self.repo_id}{at}" + (f"/{self.path}" if self.path else "")


def hub_place(name: str) -> HubPlace:
    """What a name of the form ``hf://OWNER/REPO[@REVISION][/PATH]`` means.

    Raises:
        UserError: it is not of that form, or its path leads out of the repository.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise UserError(
            f"{shown(name)} is no place on the hub. Name an SAE's folder there as hf://OWNER/REPO/PATH, or "
            "hf://OWNER/REPO@REVISION/PATH."
        )
    owner, repo, revision, path = found.groups(default="")
    if owner in ("datasets", "spaces"):
        raise UserError(f"{shown(name)} is in no model repository, the only kind that SAEs are fetched from.")
    path = path.rstrip("/")
    parts = path.split("/") if path else []
    if len(path) > 1000 or any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        raise UserError(
            f"{shown(name)} has a path that is none: it names a folder in the repository, its parts divided by single "
            "slashes, without . or .., backslashes, and patterns (*, ?, [ ])."
        )
    return HubPlace(f"{owner}/{repo}", path, revision or None)


def is_hub_place(name: str) -> bool:
    """Whether ``hub_place`` understands it."""
    try:
        hub_place(name)
    except UserError:
        return False
    return True


def hub_and_hook(name: str) -> tuple[str, str | None]:
    """The two parts of ``hf://OWNER/REPO/PATH@HOOK``; what stands behind the last @ may also be a revision."""
    place, at, hook = name.rpartition("@")
    return (place, hook) if at and parse_hook(hook)[0] != "unknown" else (name, None)


def hub_sae(name: str, download: DownloadOptions = UNLIMITED, hook: str | None = None) -> SaeEntry:
    """The SAE in a folder of a repository on the hub, all of whose files are fetched if they are not here.

    Args:
        hook: where it reads, if its files do not tell.

    Raises:
        UserError: the name is none, its folder cannot be had, or it holds no SAE that is read.
    """
    place = hub_place(name)
    entry = folder_sae(fetch_folder(place.repo_id, place.path, place.revision, place.name, download), hook=hook)
    owner = f"{HUB_PREFIX}{place.repo_id.partition('/')[0]}"
    sae_id = with_hook(place.name.removeprefix(f"{owner}/"), hook)
    return replace(entry, release=owner, sae_id=sae_id, repo_id=place.repo_id)
