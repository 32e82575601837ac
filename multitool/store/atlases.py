"""Atlases: opened from a folder, from a dataset repository on the hub, or as the package ships the demo's; searched.

An atlas tells of features what bulk runs have found: definitions, tokens, figures, evidence. 100,000 rows, with ten
definitions and thirty tokens each, take some 300 MB of memory while they can be searched.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multitool.errors import UserError, shown, some
from multitool.recipes.atlas import AtlasSearch
from multitool.store.atlas_tables import TEXTS, VERDICTS, AtlasTable, read_tables
from multitool.store.folders import is_folder, is_path
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_atlas
from multitool.text import visible

DEMO_ATLAS = Path(__file__).parent / "demo" / "atlas"
MAX_FILES = 20_000
MOST_WORDS = 20
TOKENS_TOLD = 6  # in a description
_NO_BLANKS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
DATASET = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True)
class AtlasFeature:
    """A feature that was found in an atlas, as the setting tells it that fits best. The texts may hold anything."""

    sae: str
    feature: int
    score: float  # as ``Atlas.search`` tells; 0 without words
    weights: str  # of the vector
    verdict: str | None  # "agrees", "partly" or "no"; None: not judged
    auroc: float | None
    first_token_entropy: float | None  # nats
    encoder_decoder_cosine: float | None
    definitions: tuple[tuple[str, float], ...]  # with their probabilities, the most probable first
    tokens: tuple[str, ...]  # the first of its list
    strongest_tokens: tuple[str, ...]  # of the vocabulary scan
    settings: dict  # those of the vector that were used, as the atlas tells them; empty if it does not
    problem: str = ""  # why the setting has no tree; empty where it has

    @property
    def description(self) -> str:
        """A few words for a reader, with nothing hidden in them: its first definition, unless the evidence is against
        it, and the tokens that fire it most (of its list, if there was no scan); or why there is nothing."""
        tokens = list(dict.fromkeys(filter(None, map(_short, self.strongest_tokens or self.tokens))))[:TOKENS_TOLD]
        definitions = [] if self.verdict == "no" and tokens else [text for text, _ in self.definitions]
        first = next(filter(None, map(_short, definitions)), "")
        return " · ".join(filter(None, (first, ", ".join(tokens)))) or visible(self.problem)


class Atlas:
    """What is known of the features of some SAEs, for search. Safe to share between threads.

    >>> atlas = mt.open_atlas()  # the demo's
    >>> [found.feature for found in atlas.search("rain", sae="demo/hook_embed", top=1)]
    [927]
    """

    def __init__(self, table: AtlasTable):
        self._table = table
        # The first setting of the most evidence comes first among a feature's rows.
        self._order = np.lexsort((table.setting, -self._evidence, table.feature, table.sae))
        self._keys = self._key(table.sae, table.feature)[self._order]

    def __len__(self) -> int:
        """The number of rows: one for each feature and setting."""
        return len(self._table.feature)

    @property
    def saes(self) -> tuple[str, ...]:
        """The SAEs that it tells of, by name."""
        return tuple(sorted(self._table.saes))

    @property
    def facts(self) -> tuple[dict, ...]:
        """How it was made, as its files tell it: model, SAE, settings, versions. Anything may stand there."""
        return self._table.facts

    def search(
        self, words: str, *, sae: str | Collection[str] | None = None, verdict: str | None = None,
        max_entropy: float | None = None, min_cosine: float | None = None, top: int = 50,
    ) -> list[AtlasFeature]:
        """The features that all the words occur with: in definitions, list tokens or strongest tokens of one row.

        A word occurs where a word of the text begins with it, in any case: "rain" in " Rainy", not in "train". With
        each word a row scores the probability of its definitions that have it (at most 1), and 1 / place of the first
        token that has it in the list, and in the strongest tokens; its score is the mean over the words, from 0 to 3.
        A feature has the score of its best setting. Equals come in the order of their evidence: verdict, then AUROC.

        Args:
            words: none: all features, in the order of their evidence.
            sae: only features of this SAE, or these.
            verdict: only those that were judged so or better: "agrees" is better than "partly", that than "no".
            max_entropy: only those whose first tokens' entropy is at most this, in nats.
            min_cosine: only those whose encoder and decoder have at least this cosine.
            top: at most this many features.

        Raises:
            UserError: a value cannot be.
        """
        asked = AtlasSearch(words=words, verdict=verdict, max_entropy=max_entropy, min_cosine=min_cosine, top=top)
        told, chosen, score = _asked_words(asked.words), self._chosen(asked, sae), np.zeros(len(self))
        for word in told:
            found = self._scores(word)
            chosen &= found > 0
            score += found / len(told)
        rows = np.flatnonzero(chosen)
        keys = (self._table.setting, self._table.feature, self._table.sae, -self._evidence, -score)
        rows = rows[np.lexsort([key[rows] for key in keys])]
        _, first = np.unique(self._key(self._table.sae[rows], self._table.feature[rows]), return_index=True)
        return [self._feature(int(row), float(score[row])) for row in rows[np.sort(first)[:asked.top]]]

    def describe(self, sae: str, features: Sequence[int]) -> list[str]:
        """Each feature's ``description``, by the setting with the best evidence; empty where the atlas has none."""
        if sae not in self._table.saes or not len(features):
            return [""] * len(features)
        numbers = np.array([number if 0 <= number < 2**31 else -1 for number in features], np.int64)
        keys = self._key(np.int64(self._table.saes.index(sae)), numbers)
        places = np.searchsorted(self._keys, keys).clip(max=len(self) - 1)
        return [
            self._feature(int(self._order[place]), 0.0).description if self._keys[place] == key else ""
            for place, key in zip(places, keys, strict=True)
        ]

    def _feature(self, row: int, score: float) -> AtlasFeature:
        table = self._table
        definitions = table.texts["definitions"]
        weights = definitions.weights[definitions.offsets[row]:definitions.offsets[row + 1]].tolist()
        numbers = {name: _or_none(values[row]) for name, values in table.numbers.items()}
        return AtlasFeature(
            sae=table.saes[table.sae[row]], feature=int(table.feature[row]), score=score,
            weights=table.weights[row].as_py(),
            verdict=VERDICTS[table.verdict[row]] if table.verdict[row] >= 0 else None,
            definitions=tuple(zip(self._texts(row, "definitions"), weights, strict=True)),
            tokens=self._texts(row, "tokens"), strongest_tokens=self._texts(row, "strongest_tokens"),
            settings=_setting(table.facts[table.source[row]], int(table.setting[row])),
            problem=table.problems[row].as_py(), **numbers,
        )  # fmt: skip

    def _texts(self, row: int, name: str) -> tuple[str, ...]:
        texts = self._table.texts[name]
        return tuple(self._table.spellings.take(texts.numbers[texts.offsets[row]:texts.offsets[row + 1]]).to_pylist())

    def _key(self, sae, feature):
        """One number for a feature of an SAE."""
        return np.int64(sae) * 2**32 + feature

    @cached_property
    def _evidence(self) -> np.ndarray:
        """(n,), the larger the better: the verdict, and within it the AUROC."""
        return self._table.verdict + np.nan_to_num(self._table.numbers["auroc"]).clip(0, 1) / 2

    def _chosen(self, asked: AtlasSearch, sae: str | Collection[str] | None) -> np.ndarray:
        """(n,) bool, the rows that the filters leave."""
        table = self._table
        chosen = np.ones(len(self), bool)
        if isinstance(sae, str):
            if sae not in table.saes:
                raise UserError(f"This atlas tells nothing of the SAE {shown(sae)}; it has {some(self.saes, 10)}.")
            sae = [sae]
        if sae is not None:
            chosen &= np.isin(table.sae, [table.saes.index(name) for name in sae if name in table.saes])
        if asked.verdict is not None:
            chosen &= table.verdict >= VERDICTS.index(asked.verdict)
        if asked.max_entropy is not None:
            chosen &= table.numbers["first_token_entropy"] <= asked.max_entropy
        if asked.min_cosine is not None:
            chosen &= table.numbers["encoder_decoder_cosine"] >= asked.min_cosine
        return chosen

    def _scores(self, word: str) -> np.ndarray:
        """(n,), what each row scores with a word; 0 where it does not occur."""
        index = self._index
        score = np.zeros(len(self))
        words = np.flatnonzero(pc.starts_with(index.words, word).to_numpy(zero_copy_only=False))  # one behind the other
        if not len(words):
            return score
        spelt = np.zeros(len(self._table.spellings), bool)
        spelt[index.spellings[index.starts[words[0]]:index.starts[words[-1] + 1]]] = True
        for name, texts in self._table.texts.items():
            found = np.flatnonzero(spelt[texts.numbers])
            rows, weights = index.rows[name][found], texts.weights[found]
            if name == "definitions":
                score += np.bincount(rows, weights, len(self)).clip(max=1)
            else:  # only the first of each row
                rows, first = np.unique(rows, return_index=True)
                score[rows] += weights[first]
        return score

    @cached_property
    def _index(self) -> "_Index":
        return _index(self._table)


class _Index(NamedTuple):
    """Which words occur in which spellings."""

    words: pa.Array  # each once, in lower case, in order
    starts: np.ndarray  # (words + 1,) of each word's occurrences in
    spellings: np.ndarray  # int32, place in ``AtlasTable.spellings``
    rows: dict[str, np.ndarray]  # of each of TEXTS: int32, the row of each text


def _index(table: AtlasTable) -> _Index:
    lists = _words(table.spellings)
    words = lists.flatten().dictionary_encode()
    in_order = pc.sort_indices(words.dictionary).to_numpy()
    rank = np.empty(len(in_order), np.int32)
    rank[in_order] = np.arange(len(in_order), dtype=np.int32)
    ranks = rank[words.indices.to_numpy()]
    spellings = np.repeat(np.arange(len(lists), dtype=np.int32), np.diff(lists.offsets.to_numpy()))
    starts = np.concatenate([[0], np.cumsum(np.bincount(ranks, minlength=len(rank)))])
    n_rows = len(table.feature)
    rows = {name: np.repeat(np.arange(n_rows, dtype=np.int32), np.diff(table.texts[name].offsets)) for name in TEXTS}
    return _Index(words.dictionary.take(in_order), starts, spellings[np.argsort(ranks, kind="stable")], rows)


def _words(texts: pa.Array) -> pa.ListArray:
    """The words of each text in lower case: runs of letters and digits, and each sign of scripts without spaces between
    words. Empty ones may stand at the ends."""
    apart = pc.replace_substring_regex(pc.utf8_lower(texts), pattern=_NO_BLANKS, replacement=r" \1 ")
    return pc.split_pattern_regex(apart, pattern=r"[^\pL\pM\pN]+")


def _asked_words(text: str) -> list[str]:
    """The words to look for. Raises UserError if a text has none, or too many."""
    if not text:
        return []
    found = list(dict.fromkeys(filter(None, _words(pa.array([text])).flatten().to_pylist())))
    if not found:
        raise UserError(f"words is {shown(text)}, which has no letter or digit. Name words, or none for all features.")
    if len(found) > MOST_WORDS:
        raise UserError(f"words has {len(found)} words; at most {MOST_WORDS} are looked for. Name fewer.")
    return found


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _setting(facts: dict, number: int) -> dict:
    """A setting of an atlas, if it tells it."""
    settings = facts.get("settings")
    told = settings[number] if isinstance(settings, list) and 0 <= number < len(settings) else None
    return told if isinstance(told, dict) else {}


def _short(text: str) -> str:
    """A text for a description: on one line, with nothing hidden, and not long."""
    plain = visible(text[:60].strip())
    return plain if len(plain) <= 40 else plain[:39] + "…"


# Opening


def open_atlas(*where: str | Path, download: DownloadOptions = UNLIMITED) -> Atlas:
    """An atlas, or several as one.

    >>> mt.open_atlas().saes  # the demo's, which comes with the package
    ('demo/blocks.1.hook_resid_post', ...)

    Args:
        where: a folder on this machine, with the atlas of an SAE or of several below it; or the name of a dataset
            repository on the hub, OWNER/NAME. Nothing: the demo's.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    return Atlas(read_tables([file for place in where or (DEMO_ATLAS,) for file in _files(place, download)]))


def _files(where: str | Path, download: DownloadOptions) -> list[Path]:
    """The Parquet files of an atlas, fetched if need be."""
    name = str(where)
    if name and is_folder(name):
        return atlas_files(Path(name))
    if is_path(name) or not DATASET.fullmatch(name):
        raise UserError(
            f"There is no atlas {shown(name)}: no such folder is on this machine. Name a folder (not a file in it) "
            "that `sae-multitool atlas` has written, or a dataset repository on the hub as OWNER/NAME."
        )
    return atlas_files(fetch_atlas(name, download))


def atlas_files(folder: Path) -> list[Path]:
    """The Parquet files in and below a folder, but for those in hidden folders. Raises UserError if there are none."""
    files = sorted(
        path for path in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise UserError(f"{folder} holds no atlas: no Parquet files are in it. `sae-multitool atlas` writes them.")
    if len(files) > MAX_FILES:
        raise UserError(f"{folder} holds {len(files)} Parquet files; of an atlas at most {MAX_FILES} are read.")
    return files
