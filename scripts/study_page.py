"""docs/study.md from the figures that study.py measured. Every number in it comes from them."""

from math import isnan

from multitool.jobs.candidates import GRID, INJECTED

MEASURES = ("hit rate", "AUROC", "MRR", "recall@10", "list AP", "list AUROC", "text tokens@10", "self-similarity")

_HEAD = """# Which settings work? A study of the demo

Written by `python -m scripts.study` from what it measures; nothing here is typed in. Model and SAEs are the demo's
(SmolLM2-135M-Instruct in 4 bits, float32 arithmetic; [its page](../multitool/store/demo/README.md)). It answers for
this model. On Gemma, whose embeddings are scaled up, the published settings are at home; the same study runs there:
`python -m multitool suggest --sae NAME --features 0:500`.

**How.** For each SAE {choosing} features chosen at random choose a setting: {grid} settings are tried on them (encoder,
decoder, vocabulary and mapped weights; 0.4, 0.7, 1 and 1.5 times the usual scale; without and with a fifth of the first
principal component), and where the SAE reads behind a layer {injected} more, with the vector injected behind an early
layer. The one with the best score on average is *suggested*. {held_out} other features, chosen at random too, judge it
against the published setting (encoder weights at the usual scale). Brackets hold 95 % bootstrap intervals over
features.

**What is measured** (the rules are in [evidence.md](evidence.md)). Trees of at most 40 nodes and 12 tokens; their 20
most probable definitions are read by the model as plain text, and every feature is asked how strongly it fires on
them. Every other definition chooses, the rest judge.

- *hit rate*: share of definitions on which the feature fires; *AUROC*: its activation on its own definitions against
  that on other features' definitions; *MRR*, *recall@10*: the place at which the feature comes back when all are asked.
- *list AP*, *list AUROC*: the token list's score against the feature's activation on each token alone, over tokens that
  neither made the direction nor chose the setting.
- *text tokens@10*: share of features for which one of the list's first 10 tokens is a token on which the feature fires
  most in running text (`contexts.json`). This owes nothing to the vocabulary scan.
- *self-similarity*: cosine of the decoder and the residual at the end of the prompt.
- *score*: the mean of `1 − ln rank / ln d_sae` and list AP; settings are chosen by it.

The {made_from} tokens that fire a feature most never count, for any setting: vocabulary directions are made from them.
*random* is a random direction for every feature: what it reaches is chance.
"""


def page(found: dict[str, dict]) -> str:
    """The document.

    Args:
        found: by SAE, what ``study.measured`` gives.
    """
    first = next(iter(found.values()))
    parts = [
        _HEAD.format(
            choosing=first["choosing"]["features"], grid=len(GRID), injected=len(INJECTED),
            held_out=first["held_out"][0]["features"], made_from=20,
        ),
        _answers(found),
        _questions(found),
        *(_of_sae(sae, figures) for sae, figures in found.items()),
        _examples(found),
        _limits(found),
    ]
    return "\n".join(parts)


def _answers(found: dict[str, dict]) -> str:
    rows = [
        [f"`{sae}`", figures["suggested"], _interval(figures["gain"]["score"]), _interval(figures["gain"]["recall@10"]),
         _interval(figures["gain"]["list AP"]), _interval(figures["gain"]["text tokens@10"]), _verdict(figures)]
        for sae, figures in found.items()
    ]
    columns = ["SAE", "suggested setting", "score", "recall@10", "list AP", "text tokens@10", "suggested is better"]
    table = _table(columns, rows)
    return (
        "## Suggested against published settings\n\n"
        "Differences on the held-out features, feature by feature: suggested minus published.\n\n" + table
    )


def _questions(found: dict[str, dict]) -> str:
    """What the settings tried on the choosing features say of weights and scale."""
    rows = []
    for sae, figures in found.items():
        tried = figures["choosing"]["rows"]
        components, injected, score = (
            figures["choosing"]["columns"].index(name) for name in ("components", "injected", "score")
        )
        put_in = next((f"{row[score]:.3f}: {row[0]}, {row[injected]}" for row in tried if row[injected]), None)
        # Of each kind of weights the best without a component, among the embeddings.
        best = {row[0]: row for row in reversed(tried) if not row[components] and not row[injected]}
        random = best["random"][score]
        rows.append([
            f"`{sae}`",
            *(f"{best[weights][score]:.3f} at {best[weights][1]:g} ×" for weights in ("encoder", "decoder",
                                                                                      "vocabulary", "mapped")),
            put_in, f"{random:.3f}",
            ", ".join(f"{weights} {_interval(value, '+.3f')}" for weights, value in figures["components"].items()),
        ])
    table = _table(
        ["SAE", "encoder", "decoder", "vocabulary", "mapped", "the best injected", "random",
         "a fifth of the first component adds"], rows,
    )
    return (
        "## Encoder or decoder? Which scale? A component?\n\n"
        "Mean score on the features that chose, by their judging halves, at the best scale for each kind of weights; "
        "what the component adds, as a mean over scales. A kind that is no better than random does not work on that "
        "layer.\n\n"
        + table
    )


def _verdict(figures: dict) -> str:
    """By the score's interval, on held-out features."""
    _, low, high = figures["gain"]["score"]
    if low > 0:
        return "yes"
    return "no, it is worse" if high < 0 else "not shown" if low != high else "they are the same"


def _of_sae(sae: str, figures: dict) -> str:
    held_out = [
        [row["setting"] + _mark(row["setting"], figures), row["features"], *(_interval(row[name]) for name in MEASURES)]
        for row in figures["held_out"]
    ]
    columns = figures["choosing"]["columns"]
    features = columns.index("features")  # the same for all
    best = [[row[0], f"{row[1]:g} ×", *row[2:features], *row[features + 1 :]]
            for row in figures["choosing"]["rows"][:8]]
    each = figures["each"]
    checked = [
        [setting, tree["trees"], *(tree["verdicts"].get(name, 0) for name in ("agrees", "partly", "no", "unknown")),
         _interval(tree["entropy"], ".2f"), f"{tree['entropy_centroid']:.2f}",
         *(_interval(tree[name], ".2f") for name in ("lift_centroid", "lift_random"))]
        for setting, tree in figures["checked"].items()
    ]
    return "\n".join([
        f"## `{sae}`\n",
        f"Held-out features (default here: {figures['default']}):\n",
        _table(["setting", "features", *MEASURES], held_out),
        f"Settings on the {figures['choosing']['features']} features that chose, the best 8 (their judging halves):\n",
        _table([*columns[:features], *columns[features + 1 :]], best),
        f"- Choosing for each of these features by itself gives a score of {_interval(each['score'])}; the setting "
        f"that is best on average {_interval(each['suggested'])}, the published one {_interval(each['published'])}.",
        f"- Encoder and decoder: cosine {_interval(figures['agreement']['cosine'])}; their lists of 100 tokens share "
        f"{_interval(figures['agreement']['shared'], '.1f')}.\n",
        "The trees of the held-out features as a whole, with the verdict that the page gives (the 10 most probable "
        "definitions that say different things, of which 3 must fire the feature for a tree that agrees; only tokens "
        "that made the direction do not count); entropy of the first token in nats, lift of "
        "the definitions in nats:\n",
        _table(["setting", "trees", "agrees", "partly", "no", "unknown", "entropy", "the centroid's", "lift, centroid",
                "lift, random"], checked),
    ])


def _mark(setting: str, figures: dict) -> str:
    marks = [name for name in ("suggested", "default") if figures[name] == setting]
    return f" *({', '.join(marks)})*" if marks else ""


def _examples(found: dict[str, dict]) -> str:
    lines = [
        "## Twenty features picked at random",
        "",
        "The first held-out features of every SAE, as they came, with the default settings. Read the contexts and "
        "judge for yourself whether list and definitions are about the same thing.",
        "",
    ]
    for sae, figures in found.items():
        for item in figures["examples"]:
            lines.append(f"**`{sae}` feature {item['feature']}**")
            lines.append("- fires on: " + (" · ".join(map(_quoted, item["contexts"])) or "nothing in the texts"))
            if "problem" in item:
                lines.append(f"- {item['problem']}")
            else:
                lines.append(f"- list ({item['list']}): " + ", ".join(map(_quoted, item["tokens"])))
                lines.append(f"- definitions ({item['tree']}): " + " · ".join(map(_quoted, item["definitions"])))
                lines.append("- those with the most lift per token: " + " · ".join(map(_quoted, item["lifted"])))
            lines.append("")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Text from outside as Markdown shows it literally, but for the marked token."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`").replace("_", "\\_")
    return text.replace("\n", "⏎").strip() or "␣"


def _limits(found: dict[str, dict]) -> str:
    hours = sum(figures["seconds"] for figures in found.values()) / 3600
    return (
        "## What this cannot say\n\n"
        "- Lone tokens are not what SAEs were trained on. A feature that needs context fires on few or none of them, "
        "and a list judged by them is judged on little.\n"
        "- Forms of a word are tokens of their own (`French`, ` French`): leaving out the tokens that made a direction "
        "leaves their near relatives in.\n"
        "- A definition may be right and not fire the feature: “a country in Europe” says what France is without the "
        "word that fires. Hit rates are low for that reason too.\n"
        "- The map's ridge and the outlier rule were set once by text tokens@10 on 250 features of the layers, drawn "
        "at random without regard to the split used here.\n"
        f"\nMeasured in {hours:.1f} processor hours.\n"
    )


def _interval(value: list[float], form: str = ".3f") -> str:
    mean, low, high = value
    if isnan(mean):
        return "–"
    return f"{mean:{form}}" if low == high else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _table(header: list, rows: list[list]) -> str:
    lines = ["| " + " | ".join(map(str, header)) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"
