"""docs/study.md from the figures that study.py measured. Every number in it comes from them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from textwrap import fill

import numpy as np

from multitool.jobs.candidates import INJECTED, SCALES, WEIGHTS
from multitool.recipes.prompts import PROMPTS
from multitool.store.demo_models import DEMO_MODEL, GEMMA_MODEL
from multitool.store.registry import demo_saes
from scripts.study_records import LIST_SCALES, ONE_TOKEN, Interval, Records, bound, chosen

Found = dict[str, Records]  # by SAE
LISTS = ("list AP", "list AUROC", "text tokens@10")
TREES = ("hit rate", "AUROC", "MRR", "recall@10")
JUDGED_BY = ("hit rate", "recall@10", "MRR")  # prompts and read-outs



@dataclass(frozen=True)
class Study:
    """What a study is of, and the words that are not figures."""

    model: str  # a local model, all of whose SAEs are measured
    page: str  # the document's name in docs/
    title: str
    about: str  # what it holds for
    further: str  # where what else was tried stands
    notes: Path | None  # that part of the document, where it is this one


_DEMO_ABOUT = """Written by `python -m scripts.study`; but for the next paragraph and [what else was
tried](#what-else-was-tried) every number is what it measured.

It tells what holds for the demo: SmolLM2-135M-Instruct in 4 bits, float32 arithmetic, and its four SAEs ([their
page](../multitool/store/demo/README.md)). For Gemma-2B it is published that encoder and decoder weights at the usual
scale give lists and definitions that make sense, on its residual stream too; that was not measured here. Whether they
do for another model or layer has to be measured: a model that multiplies its embeddings by √d_model, as Gemma does,
need not be such a one. Gemma 3 270M does so too, and there the cosine of a token's centred residual with its centred
embedding is 0.32 on average after layer 0, 0.11 after layer 1, and 0.01 to 0.16 deeper. For an SAE of your own:
`python -m multitool suggest --sae NAME --features 0:500`."""
_GEMMA_ABOUT = """Written by `python -m scripts.study --model gemma-3-270m`: every number is what it measured.

It tells what holds for Google's gemma-3-270m (base) in 4 bits, float32 arithmetic, and the five SAEs that come with the
tool ([their page](../multitool/store/demo/gemma-3-270m/README.md)). For the demo's model: [study.md](study.md)."""
STUDIES = {
    "SmolLM2-135M-Instruct": Study(
        DEMO_MODEL, "study.md", "Which settings work? A study of the demo", _DEMO_ABOUT, "#what-else-was-tried",
        Path(__file__).with_name("study_notes.md"),  # what was measured by hand
    ),
    "gemma-3-270m": Study(
        GEMMA_MODEL, "study-gemma.md", "Which settings work on Gemma 3 270M?", _GEMMA_ABOUT,
        "study.md#what-else-was-tried", None,
    ),
}

_HEAD = """# {title}

{about}

{how}

**What is measured** (the rules: [evidence.md](evidence.md)). The 20 tokens that fire a feature most never count, for
any setting: vocabulary directions are made from them.

- *list AP*, *list AUROC*: the token list's score against the feature's activation on each token alone, over tokens
  that neither made the direction nor chose the setting. *text tokens@10*: share of features for which one of the
  list's first 10 tokens is one on which the feature fires most in running text.
- Trees have at most 40 nodes and 12 tokens; of their 20 most probable definitions, read as plain text, every other
  one judges. *hit rate*: share of definitions on which the feature fires; *AUROC*: its activation on them against
  that on other features' definitions; *MRR*, *recall@10*: the place at which the feature comes back when all are
  asked; *place*: `1 − ln rank / ln d_sae`.
"""
_HOW = (
    "**How.** Lists and trees are chosen apart. {choosing} features of each SAE, drawn at random, choose a setting for "
    "lists, by *list AP*, and one for trees, by *place*; {held_out} others judge them. Tried are {weights}, and "
    "halfway between pullback and vocabulary or decoder; for lists at {list_scales} times the usual scale, for trees "
    "at {scales}; without and with a fifth of the first principal component; and for trees, where the SAE reads after "
    "a layer, {injected} settings that inject the vector after an early layer. *Published* are encoder weights at the "
    "usual scale, *default* is what the tool takes if nothing is said, *random* a random direction for every feature: "
    "chance. Brackets hold 95 % bootstrap intervals over features. Differences are taken feature by feature, and are "
    "*clear* if their interval leaves out 0."
)


def page(study: Study, found: Found, lenses: dict | None = None) -> str:
    """The document. Of every SAE there are held-out features, if not all of them.

    Args:
        lenses: what ``scripts.lens_study`` measured.
    """
    head = next(iter(found.values())).head
    how = _HOW.format(
        choosing=head["choosing"], held_out=head["held_out"], injected=len(INJECTED),
        weights=f"{', '.join(WEIGHTS[:-1])} and {WEIGHTS[-1]} weights",
        list_scales=_numbers(LIST_SCALES), scales=_numbers(SCALES),
    )
    return "\n".join(filter(None, [
        _HEAD.format(title=study.title, about=study.about, how=_not_measured(study, found) + _prose(how)),
        _answers(found),
        _prompts(study, found),
        _bounds(found),
        *(_of_sae(sae, records) for sae, records in found.items()),
        _verdicts(found),
        _lenses(lenses) if lenses else "",
        study.notes.read_text(encoding="utf-8") if study.notes else "",
        _examples(found),
        _limits(found),
    ]))


def _not_measured(study: Study, found: Found) -> str:
    """Which of the model's SAEs there are no figures of yet; nothing where there are of all."""
    missing = [_short(entry.name) for entry in demo_saes(study.model) if entry.name not in found]
    return f"**Not measured yet:** {', '.join(missing)}.\n\n" if missing else ""


def _answers(found: Found) -> str:
    rows = []
    for sae, records in found.items():
        for what, measure in (("lists", "list AP"), ("trees", "hit rate"), ("trees", "recall@10")):
            best, head = chosen(records, what), records.head
            default, published = head["default"][what], head["published"][0]
            gain = records.difference(what, best, default, measure)
            rows.append([
                _short(sae), f"{what}: {_setting(best)}", measure,
                *(_interval(records.mean(what, setting, measure)) for setting in (best, default, published)),
                f"{_interval(gain, '+.3f')}: {_clear(gain)}",
            ])
    table = _table(["SAE", "best direction", "measure", "best", "default", "published", "best − default"], rows)
    defaults = "; ".join(
        f"{_short(sae)}, lists {_setting(records.head['default']['lists'])}, trees "
        f"{_setting(records.head['default']['trees'])}" for sae, records in found.items()
    )
    said = _prose(f"On the held-out features. Defaults: {defaults}.")
    return f"## The best direction for lists and for trees\n\n{said}\n\n{table}"


def _prompts(study: Study, found: Found) -> str:
    """Prompts, and what is read off a tree."""
    sections = [
        "## Which prompt, and which of a tree's definitions?\n",
        _prose(
            "By the best direction for trees; *a real token*: by the embedding of the token that fires the feature "
            "most. The three figures are hit rate, with its interval, recall@10 and MRR; **bold** is clearly better "
            "than the default, *italic* clearly worse. A prompt or a way of reading *wins* on an SAE if one of the "
            "three figures is clearly better than the default's and none clearly worse; see "
            f"[what else was tried]({study.further}) for why the default stays as published."
        ) + "\n",
    ]
    names = list(PROMPTS)
    read_outs = list(dict.fromkeys(name for records in found.values() for name in records.settings("read-outs")))
    of_token = "a real token, "

    def measured(records: Records, name: str) -> tuple[str, str, str, str]:
        """Where a row's figures are, and those that they are held against."""
        best = chosen(records, "trees")
        if name in read_outs:
            return "read-outs", name, "read-outs", read_outs[0]
        if name.startswith(of_token):
            prompt = name.removeprefix(of_token)
            part = ("trees", ONE_TOKEN) if prompt == names[0] else ("prompts of a token", prompt)
            return *part, "trees", ONE_TOKEN
        return *(("trees", best) if name == names[0] else ("prompts", name)), "trees", best

    def cell(records: Records, name: str) -> str:
        part, setting, other_part, other = measured(records, name)
        told = []
        for measure in JUDGED_BY:
            mean = records.mean(part, setting, measure)
            gain = records.difference(part, setting, other, measure, other_part)
            told.append(_marked(mean, gain, interval=measure == JUDGED_BY[0]))
        return " · ".join(told)

    def table(of: str, rows: Sequence[str]) -> str:
        return _table([of, *map(_short, found)],
                      [[name, *(cell(one, name) for one in found.values())] for name in rows])

    sections.append(table("prompt", [*names, *(of_token + name for name in names)]))
    if read_outs:
        sections.append(_prose(
            "Of larger trees (150 nodes), the 10 definitions that are first by probability, as now, by lift over the "
            "centroid and random ghosts, or by lift per token:"
        ) + "\n")
        sections.append(table("prompt, first", read_outs))
    for of, rows in (("prompts", names[1:]), ("ways of reading", read_outs[1:])):
        wins = {name: sum(_wins(records, *measured(records, name)) for records in found.values()) for name in rows}
        everywhere = [name for name, n in wins.items() if n == len(found)]

        def mean_rank(name: str) -> float:
            return float(np.mean([records.mean(*measured(records, name)[:2], "MRR")[0] for records in found.values()]))

        said = "; ".join(f"*{name}* on {n}" for name, n in wins.items() if n) or "none on any"
        winner = f"By MRR the best of those that win on all: *{max(everywhere, key=mean_rank)}*." if everywhere else (
            "None wins on all.")
        sections.append(_prose(f"Of {len(found)} SAEs these {of} win: {said}. {winner}") + "\n")
    return "\n".join(sections)


def _wins(records: Records, part: str, setting: str, other_part: str, other: str) -> bool:
    gains = [records.difference(part, setting, other, measure, other_part) for measure in JUDGED_BY]
    return any(low > 0 for _, low, _ in gains) and not any(high < 0 for _, _, high in gains)


def _bounds(found: Found) -> str:
    """What a perfect direction would reach."""
    def kind(name: str) -> Callable[[Records], str]:
        return lambda records: _share(records, lambda fact: fact["kind"] == name)

    def rate(part: str, measure: str) -> Callable[[Records], str]:
        return lambda records: _interval(records.mean(part, ONE_TOKEN, measure), ".2f")

    def listed(measure: str) -> Callable[[Records], str]:
        return lambda records: _interval(records.mean("lists", bound(records), measure), ".2f")

    def of_words(setting: Callable[[Records], str]) -> Callable[[Records], str]:
        return lambda records: _interval(records.mean("trees", setting(records), "hit rate", _words(records)), ".2f")

    def best(records: Records) -> str:
        return chosen(records, "trees")

    rows: list[tuple[str, Callable[[Records], str]]] = [
        ("features that no single token fires", lambda found: _share(found, lambda fact: not fact["firing tokens"])),
        ("… that fewer than 25 fire: hardly a list to judge",
         lambda found: _share(found, lambda fact: fact["firing tokens"] < 25)),
        ("… whose strongest token is a function word", kind("function word")),
        ("… is a fragment, a sign or a number", kind("fragment or sign")),
        ("… that fire on it in the prompt too, where the ghost stands",
         lambda found: _share(found, lambda fact: fact["fires in the prompt"])),
        ("hit rate of the real token as ghost", rate("trees", "hit rate")),
        ("… where that token alone does not count", rate("verdicts", "hit rate")),
        ("… where all tokens count", rate("verdicts", "fires at all")),
        ("… of features of words alone", of_words(lambda _: ONE_TOKEN)),
        ("… and of the best direction for trees, of these features", of_words(best)),
        ("recall@10 of the real token as ghost", rate("trees", "recall@10")),
        ("list AP of the judged tokens' own direction", listed("list AP")),
        ("list AUROC of it", listed("list AUROC")),
    ]
    table = _table(["held-out features", *map(_short, found)],
                   [[name, *(cell(records) for records in found.values())] for name, cell in rows])
    said = _prose(
        "A perfect direction of one word would be the embedding of the token that fires the feature most. It is put in "
        "the ghost's place here and judged as the directions are: what is missing from 1 is what the model does not "
        "say of a real word, or says without a word that fires. For lists, a direction is made from the very tokens "
        "that judge it (Fisher's discriminant among the embeddings, at its best scale): what lists by nearness to one "
        "vector can reach."
    )
    return f"## What bounds these figures\n\n{said}\n\n{table}"


def _share(records: Records, test: Callable[[dict], bool | None]) -> str:
    facts = records.figures("features", "all").values()
    return f"{sum(bool(test(fact)) for fact in facts) / len(facts):.0%}" if facts else "–"


def _words(records: Records) -> set[int]:
    """Features whose strongest token is a word that is no function word."""
    return {feature for feature, fact in records.figures("features", "all").items() if fact["kind"] == "word"}


def _of_sae(sae: str, records: Records) -> str:
    facts = records.figures("features", "all")
    tables = []
    for what, measures in (("lists", LISTS), ("trees", TREES)):
        settings = [name for name in records.settings(what) if name != ONE_TOKEN and not name.startswith("judged")]
        rows = [[_setting(name) + _mark(name, what, records), len(records.figures(what, name)),
                 *(_interval(records.mean(what, name, measure)) for measure in measures)] for name in settings]
        tables.append(_table([f"{what} by", "features", *measures], rows))
    cosine, shared = (
        _interval(records.mean("features", "all", name), form) for name, form in (("cosine", ".2f"), ("shared", ".0f"))
    )
    return "\n".join([
        f"## `{sae}`\n",
        _prose(
            f"{len(facts)} held-out features; of each kind of weights the setting that the other features chose. "
            f"Encoder and decoder have a cosine of {cosine}, their lists of 100 tokens share {shared}. "
            f"{_component(records)}"
        ) + "\n",
        *tables,
    ])


def _component(records: Records) -> str:
    """What the component adds on the choosing features, over all settings."""
    gains = []
    for what, measure in (("lists", "list AP"), ("trees", "found")):
        part = f"choose {what}"
        pairs = [(name, name.partition(", components")[0]) for name in records.settings(part) if ", components" in name]
        ones = [records.difference(part, with_it, without, measure)[0] for with_it, without in pairs]
        if ones:
            gains.append(f"{sum(ones) / len(ones):+.3f} to {'list AP' if what == 'lists' else 'place'}")
    if not gains:
        return ""
    return f"A fifth of the first principal component adds {' and '.join(gains)} on average over settings."


def _mark(setting: str, what: str, records: Records) -> str:
    head = records.head
    marks = {"best": [chosen(records, what)], "default": [head["default"][what]], "published": head["published"]}
    told = [name for name, settings in marks.items() if setting in settings]
    return f" *({', '.join(told)})*" if told else ""


def _verdicts(found: Found) -> str:
    rows = []
    for sae, records in found.items():
        for setting in records.settings("verdicts"):
            figures = records.figures("verdicts", setting)
            count = Counter(one["verdict"] for one in figures.values())
            rows.append([
                _short(sae), _setting(setting), *(count[name] for name in ("agrees", "partly", "no", "unknown")),
                *(_interval(records.mean("verdicts", setting, name), ".2f")
                  for name in ("entropy", "lift, centroid", "lift, random")),
            ])
    columns = ["SAE", "trees by", "agrees", "partly", "no", "unknown", "entropy", "lift, centroid", "lift, random"]
    said = _prose(
        "With the verdict that the tool gives: the 10 most probable definitions that say different things, of which 3 "
        "must fire the feature for a tree that agrees; only tokens that made the direction do not count. Entropy of "
        "the first token and lift of the definitions in nats."
    )
    return f"## The trees as a whole\n\n{said}\n\n" + _table(columns, rows)


def _lenses(told: dict) -> str:
    rows = []
    for sae, found in told["saes"].items():
        for lens, figures in found["lenses"].items():
            verdicts = figures["verdicts"]
            rows.append([
                _short(sae), lens.replace("_", " "),
                *(f"{_interval(figures[name])}, by chance {figures[f'{name}_chance'][0]:.3f}"
                  for name in ("hits", "average_precision", "auroc")),
                f"{verdicts.get('agrees', 0)} / {verdicts.get('partly', 0)} / {verdicts.get('no', 0)}",
            ])
    text = (
        f"By `python -m scripts.lens_study`, on {told['features']} held-out features of each SAE: the lists of the "
        "decoder's direction by both lenses, judged by the 100 tokens that rise most when the model is pushed along it "
        f"by {_numbers(told['strengths'])} mean residual norms ([how](evidence.md#what-a-feature-writes)). *hits* are "
        "among the first 10 tokens; *chance* is what lists of random directions have; the verdicts are those that "
        "agree, agree further down, and are not to be trusted."
    )
    header = ["SAE", "lens", "hits", "average precision", "AUROC", "verdicts"]
    return f"## What features write\n\n{_prose(text)}\n\n{_table(header, rows)}\n"


def _examples(found: Found) -> str:
    n = sum(len(records.figures("examples", "default")) for records in found.values())
    if not n:
        return ""
    lines = [
        f"## {_WRITTEN.get(n, str(n))} features picked at random",
        "",
        _prose("The first held-out features of every SAE, as they came, with the default settings. Read where they "
               "fire and judge for yourself whether list and definitions are about the same thing."),
        "",
    ]
    for sae, records in found.items():
        for feature, item in records.figures("examples", "default").items():
            fires = " · ".join(map(_quoted, item["contexts"])) or "nothing in the texts"
            lines.append(f"**`{_short(sae)}` {feature}** fires on: {fires}")
            if "problem" in item:
                lines.append(f"- {item['problem']}")
            else:
                lines.append(f"- list ({item['list']}): " + ", ".join(map(_quoted, item["tokens"])))
                lines.append(f"- definitions ({item['tree']}): " + " · ".join(map(_quoted, item["definitions"]))
                             + "; most lift per token: " + " · ".join(map(_quoted, item["lifted"])))
            lines.append("")
    return "\n".join(lines)


_WRITTEN = {20: "Twenty"}


def _quoted(text: str) -> str:
    """Text from outside as Markdown shows it literally, but for the marked token."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`").replace("_", "\\_")
    return text.replace("\n", "⏎").strip() or "␣"


def _limits(found: Found) -> str:
    seconds = sum(one["seconds"] for records in found.values() for one in records.figures("seconds", "all").values())
    said = (
        "Lone tokens are not what SAEs were trained on. A feature that needs context fires on few or none of them, and "
        "a list judged by them is judged on little.",
        "Forms of a word are tokens of their own (`French`, ` French`): leaving out the tokens that made a direction "
        "leaves their near relatives in.",
        "A definition may be right and not fire the feature: “a country in Europe” says what France is without the "
        "word that fires. Hit rates are low for that reason too.",
        "The map's ridge and the outlier rule were set once by text tokens@10 on 250 features of the demo's layers, "
        "drawn at random without regard to the split used here.",
    )
    lines = [f"- {_prose(text, '  ')}" for text in said]
    if seconds:
        lines += ["", f"Measured in {seconds / 60:.0f} minutes, the times of all SAEs together."]
    return "\n".join(["## What this cannot say", "", *lines, ""])


def _short(sae: str) -> str:
    """As narrow tables have it: embed, layer 6."""
    name = sae.rpartition("/")[2]
    return f"layer {name.split('.')[1]}" if name.startswith("blocks.") else name.removeprefix("hook_")


def _setting(name: str) -> str:
    return name.replace(" the usual scale", "").replace(", components 0.2", ", component 0.2")


def _clear(gain: Interval) -> str:
    mean, low, high = gain
    if isnan(mean):
        return "not known"
    if low > 0 or high < 0:
        return "clearly better" if low > 0 else "clearly worse"
    return "not clear" if low != high else "the same"


def _marked(mean: Interval, gain: Interval, *, interval: bool) -> str:
    """A mean, bold where it is clearly better than what it is held against, italic where worse."""
    told = _interval(mean, ".2f" if interval else ".3f", alone=not interval)
    number, _, rest = told.partition(" ")
    mark = "**" if gain[1] > 0 else "*" if gain[2] < 0 else ""
    return f"{mark}{number}{mark} {rest}".strip()


def _prose(text: str, indent: str = "") -> str:
    """In lines as long as those of the rest."""
    return fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _numbers(values: Sequence[float]) -> str:
    *first, last = (f"{value:g}" for value in values)
    return f"{', '.join(first)} and {last}"


def _interval(value: Interval, form: str = ".3f", *, alone: bool = False) -> str:
    mean, low, high = value
    if isnan(mean):
        return "–"
    return f"{mean:{form}}" if alone or low == high else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _table(header: Sequence, rows: Sequence[Sequence]) -> str:
    lines = ["| " + " | ".join(map(str, header)) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"
