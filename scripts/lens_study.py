"""Which lens tells what a feature writes: logit lens and Jacobian lens on the demo's SAEs, by the evidence for lists.

    python -m scripts.lens_study [--device cpu|cuda] [--features N] [--work FOLDER] [--sae NAME ...]

Of each SAE N held-out features (those of ``scripts.study``) are pushed along their decoders, and the lists of these
directions by both lenses are judged by the tokens that rise. Writes FOLDER/lenses.json: of each SAE and lens the means
with their 95 % bootstrap intervals, and those of the difference between the lenses, feature by feature. Without a
network, where the demo's model is there.
"""

import argparse
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from multitool.evidence.statistics import mean_with_interval
from multitool.evidence.verdicts import RANDOM_LISTS, WrittenEvidence
from multitool.jobs.features import resolve
from multitool.jobs.judging import judge_lens, random_directions
from multitool.jobs.lenses import fitted
from multitool.jobs.local import finish
from multitool.jobs.steering import STRENGTHS, change_task, decoder
from multitool.model.tasks import LensTask
from multitool.recipes.recipe import LENSES, ListRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.registry import demo_saes
from scripts.study import CHOOSING, REPOSITORY

AT_ONCE = 16  # features that are pushed in one task
FIGURES = ("hits", "hits_chance", "average_precision", "average_precision_chance", "auroc", "auroc_chance", "beaten_by")


def main() -> None:
    parser, saes = argparse.ArgumentParser(description=__doc__.partition("\n")[0]), [sae.name for sae in demo_saes()]
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--features", type=int, default=100, metavar="N", help="held-out features of each SAE")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "study-work", help="where the figures are written")
    parser.add_argument("--sae", nargs="+", choices=saes, default=saes)
    parser.add_argument("--strengths", type=float, nargs="+", metavar="S", default=STRENGTHS,
                        help="of the pushes, in mean residual norms")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    library = Library(dtype="float32", device=options.device)
    found = {sae: measured(library, sae, options.features, tuple(options.strengths)) for sae in options.sae}
    path = options.work / "lenses.json"
    told = {"features": options.features, "strengths": list(options.strengths), "device": options.device, "saes": found}
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"wrote {path}")


def measured(library: Library, sae: str, n_features: int, strengths: tuple[float, ...]) -> dict:
    """The figures of one SAE."""
    started = time.monotonic()
    target = resolve(library, VectorRecipe(sae=sae, feature=0, weights="decoder"))
    jacobian = finish(fitted(target), library)
    features = np.random.default_rng(1).permutation(target.sae.d_sae)[CHOOSING : CHOOSING + n_features].tolist()
    subject = target.subject
    chance = random_directions(RANDOM_LISTS, subject.space.d_model)

    def read(directions: torch.Tensor, lens: str) -> np.ndarray:
        if lens == "jacobian_lens":
            directions = jacobian.carry(directions)
        logits, = library.do(LensTask(model=subject.name, folder=subject.folder, directions=directions.numpy()))
        return logits

    of_chance = {lens: read(chance, lens) for lens in LENSES}
    judged: dict[str, list[WrittenEvidence]] = {lens: [] for lens in LENSES}
    for first in range(0, len(features), AT_ONCE):
        directions = np.stack([decoder(target.sae, feature) for feature in features[first : first + AT_ONCE]])
        changes, = library.do(replace(change_task(target.sae, subject, directions), strengths=strengths))
        for lens, evidence in judged.items():

            def judge(own: np.ndarray, change: np.ndarray, lens: str = lens) -> WrittenEvidence:
                logits = np.concatenate([own[None], of_chance[lens]])
                return judge_lens(subject, ListRecipe(measure=lens), logits, change)

            with ThreadPoolExecutor() as pool:  # most of it is sorting, which threads do side by side
                evidence += pool.map(judge, read(torch.from_numpy(directions), lens), changes)
        print(f"{time.monotonic() - started:6.0f} s  {sae}  {len(judged['logit_lens'])} features", flush=True)
    figures = {lens: {name: values(evidence, name) for name in FIGURES} for lens, evidence in judged.items()}
    of_logit, of_jacobian = (figures[lens] for lens in LENSES)
    return {
        "features": len(features),
        "lenses": {
            lens: {name: mean_with_interval(one) for name, one in figures[lens].items()}
            | {"verdicts": dict(Counter(one.verdict for one in judged[lens]))}
            for lens in LENSES
        },
        "gain": {name: mean_with_interval(of_jacobian[name] - of_logit[name])
                 for name in ("hits", "average_precision", "auroc")},
        "seconds": time.monotonic() - started,
    }


def values(evidence: list[WrittenEvidence], name: str) -> np.ndarray:
    """A figure of each list; of one without (nothing rises) NaN is none, and 0 counts."""
    return np.array([getattr(one, name) or 0.0 for one in evidence], dtype=float)


if __name__ == "__main__":
    main()
