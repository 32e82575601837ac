"""The jobs that find features: by a text, by tokens, by likeness, by an atlas."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multitool.recipes.atlas import AtlasSearch
from multitool.store.atlases import Atlas, open_atlas


@dataclass(frozen=True)
class FoundFeature:
    """A feature that was found."""

    sae: str
    feature: int
    figures: dict[str, float | str | None]  # by the names in ``FoundFeatures.columns``
    description: str  # what is known of it, in a few words; empty if nothing is


@dataclass(frozen=True)
class FoundFeatures:
    """Features, the best first."""

    by: str  # "text", "tokens", "like" or "atlas"
    columns: tuple[str, ...]  # of the figures
    features: tuple[FoundFeature, ...]
    settings: dict  # what was asked
    sentence: str  # how they were found, for a reader
    # By a text: what fires at each of its tokens.
    tokens: tuple["TokenFires", ...] = field(default=())

    @property
    def rows(self) -> list[list]:
        """One list per feature: rank, SAE, feature, figures, description."""
        return [
            [rank, found.sae, found.feature, *(found.figures[name] for name in self.columns), found.description]
            for rank, found in enumerate(self.features, 1)
        ]

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "schema": "sae-multitool/found-features/1",
            "settings": self.settings,
            "sentence": self.sentence,
            "features": [
                {"sae": found.sae, "feature": found.feature} | found.figures | {"description": found.description}
                for found in self.features
            ],
        } | ({"tokens": [token.to_dict() for token in self.tokens]} if self.tokens else {})


@dataclass(frozen=True)
class TokenFires:
    """A token of a text and the features that fire on it, the strongest first."""

    token: str
    features: Sequence[tuple[int, float]]  # number and activation

    def to_dict(self) -> dict:
        """For JSON."""
        return {"token": self.token, "features": [
            {"feature": feature, "activation": activation} for feature, activation in self.features
        ]}


# By an atlas


def find_in_atlas(
    words: str = "",
    *,
    atlas: Atlas | str | Path | None = None,
    sae: str | None = None,
    verdict: str | None = None,
    max_entropy: float | None = None,
    min_cosine: float | None = None,
    top: int = AtlasSearch.top,
) -> FoundFeatures:
    """The features of an atlas with all the words in their definitions and tokens; ``Atlas.search`` tells how.

    >>> found = mt.find_in_atlas("rain", sae="demo/hook_embed", top=3)
    >>> found.features[0].feature
    927

    Args:
        words: none: all features that the other arguments leave, those with the best evidence first.
        atlas: an opened one; or where it is, as ``open_atlas`` takes it; None: the demo's, which the package has.
        sae: only features of this SAE.
        verdict: only features whose definitions were judged so or better: "agrees", "partly" or "no".
        max_entropy: only those whose first tokens' entropy is at most this, in nats.
        min_cosine: only those whose encoder and decoder have at least this cosine.
        top: at most so many.

    Raises:
        UserError: there is no such atlas, it cannot be read, or a value cannot be.
    """
    asked = AtlasSearch(
        words=words, sae=sae, verdict=verdict, max_entropy=max_entropy, min_cosine=min_cosine, top=top
    )
    if not isinstance(atlas, Atlas):
        atlas = open_atlas() if atlas is None else open_atlas(atlas)
    return found_in_atlas(atlas, asked)


def found_in_atlas(atlas: Atlas, asked: AtlasSearch, offered: Collection[str] | None = None) -> FoundFeatures:
    """The features of an atlas that are looked for. Runs no model.

    Args:
        offered: only features of these SAEs; None: of all.

    Raises:
        UserError: the words cannot be looked for, or the atlas has no such SAE.
    """
    filters = {name: value for name, value in asdict(asked).items() if name not in ("words", "sae")}
    found = atlas.search(asked.words, sae=asked.sae or offered, **filters)
    columns: tuple[str, ...] = ("verdict", "auroc", "first_token_entropy", "encoder_decoder_cosine")
    if asked.words:
        columns = ("score", *columns)
    return FoundFeatures(
        by="atlas",
        columns=columns,
        features=tuple(
            FoundFeature(one.sae, one.feature, {name: getattr(one, name) for name in columns}, one.description)
            for one in found if offered is None or one.sae in offered
        ),
        settings=asdict(asked),
        sentence=_told_of_atlas(asked.words, bool(found)),
    )


def _told_of_atlas(words: str, found: bool) -> str:
    if not found:
        return "The atlas has no such feature. Name fewer words, or their beginnings, or ask for less."
    if not words:
        return "Features of the atlas, those with the best evidence first."
    return (
        "Features of the atlas with each of the words in a definition or a token. The score, from 0 to 3, is the "
        "probability of the definitions that have a word, and 1 / its place in the token list and among the tokens "
        "that fire the feature most; of several words the mean."
    )
