"""What steering does to a text at which strength, and what the cautions say of it: ``docs/steering.md``'s figures.

    python -m scripts.steering_study RECORDS.jsonl                    measure what is missing there, and print the table
    python -m scripts.steering_study RECORDS.jsonl --temperature 1     the same, drawn

Of random features of the demo's SAEs; a few minutes for each SAE on a quiet processor.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import multitool as mt
from multitool.evidence.breaking import IMPROBABLE, REPETITIVE
from multitool.page.steer_tab import EXAMPLES

SAES = tuple(f"demo/{hook}" for hook in ("hook_embed", *(f"blocks.{n}.hook_resid_post" for n in (1, 6, 12))))
STRENGTHS = (-0.8, -0.4, -0.2, 0.1, 0.2, 0.4, 0.6, 0.8)
FEATURES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    done = records(options.records)
    known = {(one["sae"], one["feature"], one["asked"], one["temperature"]) for one in done}
    library = mt.Library(dtype="float32", device="cpu")
    for sae in SAES:
        d_sae = library.sae(library.find(sae)).d_sae
        for feature in np.random.default_rng(0).choice(d_sae, FEATURES, replace=False).tolist():
            for text in EXAMPLES:
                if (sae, feature, text, options.temperature) not in known:
                    asked = mt.SteerRecipe(text=text, strengths=STRENGTHS, temperature=options.temperature)
                    found = mt.continuations(library, mt.VectorRecipe(sae=sae, feature=feature), asked)
                    with options.records.open("a", encoding="utf-8") as file:
                        for line in lines(sae, feature, asked, found):
                            file.write(json.dumps(line) + "\n")
    print(table([one for one in records(options.records) if one["temperature"] == options.temperature]))


def lines(sae: str, feature: int, asked: mt.SteerRecipe, found) -> Iterator[dict]:
    """A record of each steered continuation, beside the unsteered one."""
    plain, *steered = found.continuations
    for one in steered:
        yield {
            "sae": sae, "feature": feature, "asked": asked.text, "temperature": asked.temperature,
            "strength": one.strength, "text": one.text, "repetition": one.repetition,
            "repetition_unsteered": plain.repetition, "log_probability": one.log_probability,
            "below": plain.log_probability - one.log_probability, "fires": max(one.activations, default=0.0),
            "fires_unsteered": max(plain.activations, default=0.0),
        }


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(found: list[dict]) -> str:
    """Markdown: figures for each strength, over all features and texts of all SAEs."""
    by_strength = defaultdict(list)
    for one in found:
        by_strength[one["strength"]].append(one)
    rows = [
        "| strength | texts | fires more | nats below | repeated | improbable | repeats, unlike the unsteered |",
        "|---|---|---|---|---|---|---|",
    ]
    for strength, texts in sorted(by_strength.items()):
        n = len(texts)
        more = sum(one["fires"] > one["fires_unsteered"] for one in texts) / n
        improbable = sum(one["below"] > IMPROBABLE for one in texts) / n
        repeats = sum(one["repetition"] >= REPETITIVE > one["repetition_unsteered"] for one in texts) / n
        below, repeated = (statistics.median(one[name] for one in texts) for name in ("below", "repetition"))
        rows.append(
            f"| {strength:+g} | {n} | {more:.0%} | {below:.2f} | {repeated:.0%} | {improbable:.0%} | {repeats:.0%} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
