"""How fast an encoder is carried back through the layers, against one way through them."""

from functools import partial

import torch

from benchmarks.material import library
from benchmarks.measuring import Reach, Row, ratios, side_by_side, timed
from multitool.model.pullback import Pullback
from multitool.model.residual_stream import residuals
from multitool.model.tasks import Base
from multitool.store.registry import demo_saes

_MANY = 1000  # features that are products with the matrix


def pullback(repeats: int, smoke: bool) -> list[Row]:
    """One feature alone, and each of many, on the demo's layers."""
    rows = []
    for entry in [entry for entry in demo_saes() if entry.kind != "embed"][: 1 if smoke else None]:
        sae, subject = library().load(entry)
        model = library().run(subject.name, subject.folder)
        base = library().pullback_task(entry, subject).base
        encoders = torch.stack([sae.feature(feature).encoder for feature in range(10 if smoke else _MANY)])
        matrix = library().pullback(entry, subject)
        assert matrix is not None
        ids = torch.tensor([(base.place.bos_id, token_id) for token_id in base.token_ids])
        seconds = side_by_side(repeats, {
            "alone": timed(partial(_alone, model, base, encoders[:1])),
            "way there": timed(partial(residuals, model, base.place.hook, input_ids=ids)),
            "each of many": _each(encoders, matrix, 0.0 if smoke else 0.5),
        })
        rows += [
            Row(f"{entry.hook}: a feature alone, {len(ids)} base tokens", {"alone": seconds["alone"],
                "way there": seconds["way there"]}, ratio=ratios(seconds, "alone", "way there"),
                reach=Reach("at most", 1.0, of="alone")),
            Row(f"{entry.hook}: each of {len(encoders):,}", {"each of many": seconds["each of many"]},
                reach=Reach("at most", 0.01, of="each of many")),
        ]
    return rows


def _alone(model, base: Base, direction: torch.Tensor) -> None:
    Pullback(model, base, 1).of(direction)


def _each(encoders: torch.Tensor, matrix: torch.Tensor, at_least: float):
    """Seconds for one of them, all together as a product."""
    together = timed(lambda: torch.nn.functional.normalize(encoders @ matrix, dim=1), at_least=at_least)
    return lambda: together() / len(encoders)
