"""The jobs that find features: by a text, by tokens, by likeness."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FoundFeature:
    """A feature that was found."""

    sae: str
    feature: int
    figures: dict[str, float]  # by the names in ``FoundFeatures.columns``
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
