"""Terms of use that must be accepted before a model is fetched: once, remembered in the cache folder."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from multitool.errors import UserError
from multitool.store.folders import cache_folder
from multitool.store.problems import STORING_ACCEPTANCE, said

ACCEPT_GEMMA_VARIABLE = "SAE_MULTITOOL_ACCEPT_GEMMA_TERMS"
_YES = ("1", "true", "yes")


@dataclass(frozen=True)
class Terms:
    """Terms of use."""

    title: str
    page: str  # where they are published
    file: Path  # their text, as of the day on which it was taken from there
    remembered_in: str  # the name of the file in the cache that says when they were accepted
    variable: str  # by which an operator accepts them

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    @property
    def version(self) -> str:
        """The line of the text that tells its date."""
        return next(line for line in self.text.splitlines() if line.startswith("Last modified:"))

    @property
    def accepted(self) -> bool:
        """Whether they have been accepted on this machine, in this version. Raises UserError without a cache folder."""
        if os.environ.get(self.variable, "").strip().lower() in _YES:
            return True
        try:
            return self.version in (cache_folder() / self.remembered_in).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False


GEMMA_TERMS = Terms(
    title="Gemma Terms of Use",
    page="https://ai.google.dev/gemma/terms",
    file=Path(__file__).parent / "demo" / "gemma-3-270m" / "TERMS.txt",
    remembered_in="gemma-terms-accepted.txt",
    variable=ACCEPT_GEMMA_VARIABLE,
)


def accept_gemma_terms() -> None:
    """Accept the Gemma Terms of Use (https://ai.google.dev/gemma/terms), for this machine and once.

    The model ``demo/gemma-3-270m-Q4_K_M`` is fetched only after that. A file in the cache folder remembers it.

    >>> mt.accept_gemma_terms()  # doctest: +SKIP

    Raises:
        UserError: the cache folder cannot be written.
    """
    terms = GEMMA_TERMS
    if terms.accepted:
        return
    folder = cache_folder()
    with said(STORING_ACCEPTANCE, folder=folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / terms.remembered_in).write_text(
            f"The {terms.title} ({terms.page}; {terms.version}) were accepted on "
            f"{datetime.now(UTC):%Y-%m-%d at %H:%M UTC}.\n", encoding="utf-8",
        )


def refuse_unaccepted(terms: Terms | None, model: str) -> None:
    """Raises UserError if a model has terms of use that have not been accepted, with the ways to accept them."""
    if terms is not None and not terms.accepted:
        raise UserError(
            f"The model {model} is used under the {terms.title}, which you must accept once before it is fetched. Read "
            f"them in {terms.file} or at {terms.page}. Accept them with --accept-gemma-terms on the command line, "
            "mt.accept_gemma_terms() in Python, the button on the page under the SAE, or "
            f"{terms.variable}=1 where you run the page for others."
        )
