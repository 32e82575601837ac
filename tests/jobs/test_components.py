"""What a component is, told by the tokens at its ends."""

import numpy as np
import pytest

from multitool.errors import UserError
from multitool.jobs.components import components_of, ends
from multitool.jobs.local import components
from multitool.store.library import Library


def test_the_ends_are_the_largest_and_the_smallest_outermost_first():
    positive, negative = ends(np.array([0.5, -2.0, 3.0, 0.0, -1.0]), 2)
    assert (positive.tolist(), negative.tolist()) == ([2, 0], [1, 4])


def test_the_components_of_every_architecture_are_told_as_loops_would(subject):
    rows, texts = subject.space.E.tolist(), subject.token_texts
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    found = components_of(subject, count=3, top=4)
    assert [component.index for component in found] == [1, 2, 3]
    total = sum((x - m) ** 2 for row in rows for x, m in zip(row, mean, strict=True))
    for component, p in zip(found, subject.space.components.tolist(), strict=False):
        along = [sum((x - m) * y for x, m, y in zip(row, mean, p, strict=True)) for row in rows]
        assert component.share == pytest.approx(sum(x * x for x in along) / total, rel=1e-3)
        # Neither the special token 0 nor the rows from 300 on, which have no token.
        ordered = sorted(range(1, 300), key=lambda token_id: along[token_id])
        assert component.negative == tuple(texts[token_id] for token_id in ordered[:4])
        assert component.positive == tuple(texts[token_id] for token_id in ordered[:-5:-1])


def test_the_first_component_of_the_demo_tells_something(demo_library):
    first, second = components(demo_library, "demo/hook_embed", count=2, top=5)
    assert 1 > first.share > second.share > 0.001
    assert len(set(first.positive) | set(first.negative)) == 10
    assert first.to_dict() == {"index": 1, "share": first.share, "positive": list(first.positive),
                               "negative": list(first.negative)}


@pytest.mark.parametrize(("numbers", "said"), [({"count": 0}, "count is 0"), ({"count": 577}, "from 1 to 576"),
                                               ({"top": 1001}, "from 1 to 1000"), ({"top": "all"}, "top is 'all'")])
def test_a_number_that_cannot_be_is_refused(demo_library, numbers, said):
    with pytest.raises(UserError, match=said):
        components(demo_library, "demo/hook_embed", **numbers)


def test_without_a_model_there_are_none():
    with pytest.raises(UserError, match="Name a model, or an SAE"):
        components(Library())
