"""The jobs that find features: by a text, by tokens, by likeness, by an atlas. Where no number is known, one of
these tells it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from multitool._version import __version__
from multitool.errors import UserError, some
from multitool.jobs.features import Resolved, pullback_matrix, resolve, scans
from multitool.jobs.steps import Ask, Job, Keep, Prepare
from multitool.jobs.text import check_length, read_task, text_tokens
from multitool.model.subject import check_tokens, tokens_meant
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.directions import NOWHERE
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import VectorRecipe
from multitool.store.atlases import Atlas, open_atlas
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.registry import saes
from multitool.store.saes import Sae, strongest_contexts
from multitool.text import csv_table, data_frame, html_table
from multitool.vectors.nearness import best, lengths, mixed_lengths, products
from multitool.vectors.vector import token_sum

if TYPE_CHECKING:
    from pandas import DataFrame

FIRES_TOLD = 10  # features at a token of a text
_DESCRIBED_BY = 4  # tokens of a description
_LONGEST_TOKEN = 30  # characters of it
_DEAD = "dead: its encoder weights are zero, or no numbers"


@dataclass(frozen=True)
class FoundFeature:
    """A feature that was found."""

    sae: str
    feature: int
    figures: dict[str, float | str | None]  # by the names in ``FoundFeatures.columns``
    description: str  # what is known of it, in a few words; empty if nothing is


@dataclass(frozen=True)
class FoundFeatures:
    """Features, the best first. A notebook shows them as a table.

    >>> found = mt.find_like(library, "demo/hook_embed", 927, among=["demo/hook_embed"], top=2)
    >>> found.headings
    ('rank', 'sae', 'feature', 'cosine', 'description')
    """

    by: str  # "text", "tokens", "like" or "atlas"
    columns: tuple[str, ...]  # of the figures
    features: tuple[FoundFeature, ...]
    settings: dict  # what was asked
    sentence: str  # how they were found, for a reader
    # By a text: what fires at each of its tokens.
    tokens: tuple["TokenFires", ...] = field(default=())

    @property
    def headings(self) -> tuple[str, ...]:
        """Of ``rows``."""
        return ("rank", "sae", "feature", *self.columns, "description")

    @property
    def rows(self) -> list[list]:
        """One list per feature: rank, SAE, feature, figures, description."""
        return [
            [rank, found.sae, found.feature, *(found.figures[name] for name in self.columns), found.description]
            for rank, found in enumerate(self.features, 1)
        ]

    def __repr__(self) -> str:
        return f"FoundFeatures({len(self.features)} of {self.settings.get('sae')}: {self.sentence!r})"

    def _repr_html_(self) -> str:
        return html_table(self.sentence, self.headings, self.rows)

    def to_csv(self) -> str:
        """Comment lines with what was asked, a header line, and one line per feature."""
        told = {name: value for name, value in self.to_dict().items() if name in ("schema", "sentence")}
        return csv_table(self.headings, self.rows, self.settings | told)

    def to_pandas(self) -> "DataFrame":
        """One row per feature."""
        return data_frame(self.headings, self.rows)

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


Search = TextSearch | TokenSearch | LikenessSearch | AtlasSearch


def find_job(library: Library, asked: Search, *, model: str | None = None) -> Job[FoundFeatures]:
    """The features that are asked for. Arguments and errors as in the job of each kind."""
    match asked:
        case AtlasSearch():
            return find_in_atlas_job(library, asked)
        case TextSearch():
            return find_by_text_job(library, asked, model=model)
        case TokenSearch():
            return find_by_tokens_job(library, asked, model=model)
    return find_like_job(library, asked, model=model)


# By a text


def find_by_text_job(library: Library, asked: TextSearch, *, model: str | None = None) -> Job[FoundFeatures]:
    """The features that fire on a text more than on plain prose.

    Of each feature that fires: ``maximum`` and ``mean`` of its activations on the text's tokens, the number of tokens
    that it ``fires_on``; ``prose``, the mean of its maxima on each of ``plain_texts.PASSAGES``; and ``above_prose``,
    ``maximum - prose``, which orders them, so that features that fire on everything do not come first. At each token
    they are ordered by ``activation - prose``.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the SAE or its model cannot be had or read, or the text is empty or too long.
    """
    check_length(asked.text)
    target = yield Prepare(partial(resolve, library, VectorRecipe(sae=asked.sae, feature=0), model))
    entry, subject = target.sae.entry, target.subject
    ids = yield Prepare(partial(text_tokens, subject, asked.text))
    yield Prepare(partial(library.encoder, entry))
    prose = library.prose_task(entry, subject)
    if not (yield Prepare(partial(library.keeps, prose))):
        yield Keep(prose)
    ((residuals,),) = yield Ask((read_task(entry, subject, [ids]),), "text")
    return (yield Prepare(partial(_found_on_text, target, asked, ids, residuals), "find"))


def _found_on_text(target: Resolved, asked: TextSearch, ids: Sequence[int], residuals: np.ndarray) -> FoundFeatures:
    library, entry, texts = target.library, target.sae.entry, target.subject.token_texts
    encoder, prose = library.encoder(entry), library.on_prose(entry, target.subject)
    if prose is None:
        raise ValueError("plain prose must be read first")
    maximum, total, fires_on = torch.full_like(prose, -torch.inf), torch.zeros_like(prose), torch.zeros_like(prose)
    tokens: list[TokenFires] = []
    for place, part in encoder.encoded(torch.from_numpy(residuals)):
        firing = part > 0
        maximum = torch.maximum(maximum, part.amax(0))
        total += part.sum(0)
        fires_on += firing.float().sum(0)
        strongest = (part - prose).where(firing, -torch.inf).topk(min(FIRES_TOLD, len(prose)), dim=1).indices
        for token_id, features, values in zip(ids[place], strongest.tolist(), part.gather(1, strongest).tolist(),
                                              strict=True):
            fires = [(feature, value) for feature, value in zip(features, values, strict=True) if value > 0]
            tokens.append(TokenFires(texts[token_id], fires))
    columns = {
        "above_prose": maximum - prose, "maximum": maximum, "mean": total / len(ids), "fires_on": fires_on.int(),
        "prose": prose,
    }
    found = best(columns["above_prose"], asked.top, fires_on > 0)
    sentence = (
        f"{_counted(int((fires_on > 0).sum()), 'feature')} of {entry.name} fire on this text; first those that do more "
        "than on plain prose."
    )
    return _told("text", target, asked, columns, found, sentence, runs=True, tokens=tuple(tokens))


def fires_at_job(library: Library, found: FoundFeatures, place: int) -> Job[FoundFeatures]:
    """What fires at a token of a text that features were found by, in the order of ``TokenFires``.

    Args:
        place: of the token, from 0.

    Raises:
        UserError: the SAE cannot be had any more.
    """
    target = yield Prepare(partial(resolve, library, VectorRecipe(sae=found.settings["sae"], feature=0)))
    entry, fires = target.sae.entry, found.tokens[place].features
    told = yield Prepare(partial(described, target, entry, [feature for feature, _ in fires]), "find")
    features = tuple(
        FoundFeature(entry.name, feature, {"activation": activation}, description)
        for (feature, activation), description in zip(fires, told, strict=True)
    )
    return replace(found, columns=("activation",), features=features)


# By tokens


def find_by_tokens_job(library: Library, asked: TokenSearch, *, model: str | None = None) -> Job[FoundFeatures]:
    """The features nearest to a token or a sum of tokens; from the weights alone, but where they are ordered by
    activation.

    ``cosine``: ``f·u(sum w_t (E_t - c))`` with the feature's direction ``f`` by its weights, as in ``VectorRecipe``.
    ``activation``: how strongly it fires on the token alone; told of a single token, not one taken away, that
    the vocabulary scan has, or that is read to order by it.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the SAE or its model cannot be had, a word is no token of the model, or the tokens cancel.
    """
    recipe = VectorRecipe(sae=asked.sae, feature=0, weights=asked.weights)
    target = yield Prepare(partial(resolve, library, recipe, model, for_list=True))
    subject = target.subject
    meant = yield Prepare(partial(tokens_meant, subject, asked.tokens))
    towards = token_sum(subject.space, meant, centroid=True)
    if not towards.any():
        raise UserError(NOWHERE["tokens"])
    matrix = yield from _carried_by(target)
    alone = yield from _fires_alone(target, asked, meant)
    return (yield Prepare(partial(_found_near, target, asked, towards, matrix, alone), "find"))


def _found_near(
    target: Resolved, asked: TokenSearch, towards: Tensor, matrix: Tensor | None, alone: Tensor | None
) -> FoundFeatures:
    columns = {"cosine": _nearness(target, matrix, towards)} | ({} if alone is None else {"activation": alone})
    values, name = columns[asked.measure], target.sae.entry.name
    if asked.measure == "activation":
        found = best(values, asked.top, values > 0)
        sentence = f"The features of {name} that fire most on {asked.tokens} alone."
    else:
        found = best(values, asked.top)
        sentence = f"The features of {name} whose {target.recipe.kind} direction is nearest to {asked.tokens}."
    runs = matrix is not None or alone is not None
    return _told("tokens", target, asked, columns, found, sentence, runs=runs)


def _fires_alone(target: Resolved, asked: TokenSearch, meant: Sequence[tuple[int, float]]) -> Job[Tensor | None]:
    """How strongly every feature fires on the one token, (d_sae,); None where nobody asks and no scan tells it."""
    library, entry, subject = target.library, target.sae.entry, target.subject
    (token_id, weight), *more = meant
    if more or weight <= 0:
        return None
    scan = yield Prepare(partial(library.scan, entry, subject))
    if scan is not None:
        residual = scan.part(token_id, token_id + 1)
    elif asked.measure == "activation":
        check_tokens(subject, [token_id], "tokens")
        ((read,),) = yield Ask((read_task(entry, subject, [(token_id,)]),), "text")
        residual = torch.from_numpy(read)
    else:
        return None
    encoder = yield Prepare(partial(library.encoder, entry))
    return (yield Prepare(lambda: encoder.encode(residual)[0], "find"))


def _carried_by(target: Resolved) -> Job[Tensor | None]:
    """The matrix that carries the features' rows to the embeddings, (d_model, d_model), where one does."""
    entry = target.sae.entry
    match target.recipe.kind:
        case "pullback" if entry.kind != "embed":
            return (yield from pullback_matrix(target, entry))
        case "mapped":
            yield from scans(target)
            return (yield Prepare(partial(_map, target)))
    return None


def _map(target: Resolved) -> Tensor:
    scan = target.library.scan(target.sae.entry, target.subject)
    if scan is None:
        raise ValueError("the vocabulary must be scanned first: see scans")
    return target.library.embedding_map(scan, target.subject)


def _nearness(target: Resolved, matrix: Tensor | None, towards: Tensor) -> Tensor:
    """The cosine of every feature's direction with another: (d_sae,).

    Args:
        matrix: by what the features' rows are carried, if they are.
    """
    library, sae, kind = target.library, target.sae, target.recipe.kind
    if kind == "mix":
        share = target.recipe.encoder_share
        mixed = share * _cosines(library, sae, "encoder", towards) + (1 - share) * _cosines(
            library, sae, "decoder", towards)
        return mixed / library.lengths(sae.entry, "mix", partial(mixed_lengths, sae.W_enc.T, sae.W_dec, share))
    side = "decoder" if kind in ("decoder", "mapped") else "encoder"
    if matrix is None:
        return _cosines(library, sae, side, towards)
    # No row is carried: (w M)·t is w·(M t).
    rows = _rows(sae, side)
    carried = library.lengths(sae.entry, kind, partial(lengths, rows, matrix), target.subject)
    return products(rows, matrix @ towards) / (carried * towards.norm())


def _cosines(library: Library, sae: Sae, side: str, towards: Tensor) -> Tensor:
    """``cos(w_i, t)`` for all features: (d_sae,) float32; NaN for a feature of zeros."""
    rows = _rows(sae, side)
    return products(rows, towards) / (library.lengths(sae.entry, side, partial(lengths, rows)) * towards.norm())


def _rows(sae: Sae, side: str) -> Tensor:
    """A row for every feature, (d_sae, d_model)."""
    return sae.W_dec if side == "decoder" else sae.W_enc.T


# By likeness


def find_like_job(library: Library, asked: LikenessSearch, *, model: str | None = None) -> Job[FoundFeatures]:
    """The features nearest to a feature, in its SAE and in others of the same model; it itself is left out.

    ``cosine``: of the features' decoder rows, or of their encoder columns.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: an SAE cannot be had or is of another model, there is no such feature, or it is dead.
    """
    own = library.find(asked.sae)
    entries = [library.find(name) for name in asked.among] or [own, *_of_the_model(library, own)]
    for entry in entries:
        if entry.model != own.model:
            raise UserError(
                f"among has {entry.name}, which belongs to {entry.model}, and {own.name} belongs to {own.model}. "
                "Features are compared among SAEs of the same model."
            )
    target = yield Prepare(partial(resolve, library, VectorRecipe(sae=asked.sae, feature=asked.feature), model))
    towards = getattr(target.sae.feature(asked.feature), asked.by)
    if not towards.any():
        raise UserError(NOWHERE[asked.by])
    found: list[tuple[float, SaeEntry, int]] = []
    for entry in dict.fromkeys(entries):
        sae = yield Prepare(partial(_loaded, library, entry, target.sae))
        found += yield Prepare(partial(_alike, sae, target, asked, towards), "find")
    found.sort(key=lambda one: -one[0])
    return (yield Prepare(partial(_told_alike, target, asked, entries, found[: asked.top]), "find"))


def _of_the_model(library: Library, own: SaeEntry) -> Iterator[SaeEntry]:
    """The other SAEs of the same model that need no download."""
    for entry in saes(patterns=library.patterns):
        if entry.model == own.model and entry != own and (entry.folder is not None or library.has(entry)):
            yield entry


def _loaded(library: Library, entry: SaeEntry, beside: Sae) -> Sae:
    sae = library.sae(entry)
    if sae.d_model != beside.d_model:
        raise UserError(
            f"among has {entry.name}, whose directions have {sae.d_model} entries, and those of {beside.entry.name} "
            f"have {beside.d_model}. They cannot be compared."
        )
    return sae


def _alike(sae: Sae, target: Resolved, asked: LikenessSearch, towards: Tensor) -> list[tuple[float, SaeEntry, int]]:
    near = _cosines(target.library, sae, asked.by, towards)
    if sae.entry == target.sae.entry:
        near[asked.feature] = torch.nan
    return [(float(near[feature]), sae.entry, feature) for feature in best(near, asked.top).tolist()]


def _told_alike(
    target: Resolved, asked: LikenessSearch, entries: Sequence[SaeEntry], found: Sequence[tuple[float, SaeEntry, int]]
) -> FoundFeatures:
    descriptions: dict[tuple[SaeEntry, int], str] = {}
    for entry in {entry for _, entry, _ in found}:
        of_entry = [feature for _, other, feature in found if other == entry]
        descriptions |= {
            (entry, feature): told
            for feature, told in zip(of_entry, described(target, entry, of_entry), strict=True)
        }
    names = list(dict.fromkeys(entry.name for entry in entries))
    return FoundFeatures(
        by="like",
        columns=("cosine",),
        features=tuple(
            FoundFeature(entry.name, feature, {"cosine": cosine}, descriptions[entry, feature])
            for cosine, entry, feature in found
        ),
        settings=_settings(target, asked) | {"among": names},
        sentence=f"The features of {some(names, 4)} whose {asked.by} directions are nearest to that of feature "
        f"{asked.feature} of {target.sae.entry.name}.",
    )


# What is told of them


def _told(
    by: str, target: Resolved, asked: TextSearch | TokenSearch, columns: dict[str, Tensor], found: Tensor,
    sentence: str, *, runs: bool, tokens: tuple[TokenFires, ...] = (),
) -> FoundFeatures:
    """Args:
        runs: whether the running model has a part in it.
    """
    entry, features = target.sae.entry, found.tolist()
    figures = {name: values[found].tolist() for name, values in columns.items()}
    return FoundFeatures(
        by=by,
        columns=tuple(columns),
        features=tuple(
            FoundFeature(entry.name, feature, {name: values[row] for name, values in figures.items()}, description)
            for row, (feature, description) in enumerate(zip(features, described(target, entry, features), strict=True))
        ),
        settings=_settings(target, asked) | ({"dtype": target.precision} if runs else {}),
        sentence=sentence,
        tokens=tokens,
    )


def _settings(target: Resolved, asked: TextSearch | TokenSearch | LikenessSearch) -> dict:
    """What was asked, with what was left open."""
    weights = {"weights": target.recipe.kind} if isinstance(asked, TokenSearch) else {}
    return asdict(asked) | weights | {
        "sae": target.sae.entry.name, "model": target.subject.name, "version": __version__
    }


def described(target: Resolved, entry: SaeEntry, features: Sequence[int]) -> list[str]:
    """What is known of features of an SAE, in a few words: what the atlas says of each; where it says nothing, the
    tokens on which it fired most in the texts kept with the SAE; where there are none, those nearest to its encoder's
    direction."""
    atlas = target.library.atlas()
    # One that was made of an SAE's folder names it by its path.
    name = str(entry.folder) if atlas and entry.name not in atlas.saes else entry.name
    told = dict(zip(features, atlas.describe(name, features), strict=True)) if atlas else {}
    for feature in features:
        if not told.get(feature):
            told[feature] = _few(context.token for context in strongest_contexts(entry, feature))
    if unknown := [feature for feature in features if not told[feature]]:
        told |= _nearest_tokens(target, entry, unknown)
    return [told[feature] for feature in features]


def _nearest_tokens(target: Resolved, entry: SaeEntry, features: Sequence[int]) -> dict[int, str]:
    """The tokens with the largest ``u(W_enc[:, i])·u(E_t)`` of each feature, told in few words; or that it has no
    encoder."""
    space, texts = target.subject.space, target.subject.token_texts
    rows = target.library.sae(entry).W_enc.T[list(features)].float()
    near = (space.products(rows) / space.norms).nan_to_num(-torch.inf)
    values, token_ids = (found.tolist() for found in near.topk(min(4 * _DESCRIBED_BY, space.n_tokens), dim=1))
    return {
        feature: _few(texts[token_id] for token_id, value in zip(ids, cosines, strict=True) if value > 0)
        if cosines[0] > 0 else _DEAD
        for feature, ids, cosines in zip(features, token_ids, values, strict=True)
    }


def _few(tokens: Iterable[str]) -> str:
    """The first tokens that differ in more than case and spaces."""
    words: dict[str, str] = {}
    for token in tokens:
        if word := token.strip()[:_LONGEST_TOKEN]:
            words.setdefault(word.casefold(), word)
    return ", ".join(list(words.values())[:_DESCRIBED_BY])


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


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
        top: at most this many.

    Raises:
        UserError: there is no such atlas, it cannot be read, or a value cannot be.
    """
    asked = AtlasSearch(
        words=words, sae=sae, verdict=verdict, max_entropy=max_entropy, min_cosine=min_cosine, top=top
    )
    if not isinstance(atlas, Atlas):
        atlas = open_atlas() if atlas is None else open_atlas(atlas)
    return found_in_atlas(atlas, asked)


def find_in_atlas_job(library: Library, asked: AtlasSearch) -> Job[FoundFeatures]:
    """As ``search_atlas``."""
    return (yield Prepare(partial(search_atlas, library, asked), "find"))


def search_atlas(library: Library, asked: AtlasSearch, *, offered: bool = False) -> FoundFeatures:
    """The features of the library's atlas that are looked for. Runs no model.

    Args:
        offered: only features of SAEs that are to be had here.

    Raises:
        UserError: there is no atlas, it cannot be read, the words cannot be looked for, or it has no such SAE.
    """
    atlas = library.atlas()
    if atlas is None:
        raise UserError("There is no atlas here to look in. Find features by a text, by tokens or by likeness.")
    return found_in_atlas(atlas, asked, list(filter(library.offers, atlas.saes)) if offered else None)


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
