"""What fires on other features' definitions, against the same reckoned for each feature anew."""

from types import SimpleNamespace

import numpy as np

from multitool.evidence.verdicts import CONTROL_FEATURES, strongest
from multitool.jobs.judging import Controls, ReadText, control_features


def test_controls_are_what_each_feature_would_be_judged_by():
    random = np.random.default_rng(0)
    read = []
    for feature in (3, 3, 8, 1):
        text = tuple(random.integers(20, size=random.integers(1, 5)).tolist())
        fires = np.maximum(random.normal(size=(len(text), 12)) - 0.5, 0).astype(np.float32)
        read.append(ReadText(feature, text, fires))
    controls = Controls(iter(read))
    for feature in (0, 3, 8):
        for n_used in (0, 4, 20):
            made_from = np.zeros(20, dtype=bool)
            made_from[random.permutation(20)[:n_used]] = True
            expected = [strongest(one.fires, one.text, made_from) for one in read if one.feature != feature]
            others = controls.others(feature, made_from)
            np.testing.assert_array_equal(others.strongest, expected)
            np.testing.assert_array_equal(others.mean, np.mean(expected, axis=0))
    assert len(Controls([]).others(0, np.zeros(20, dtype=bool)).strongest) == 0


def test_a_feature_whose_weights_are_no_numbers_is_no_control():
    drawn = control_features(SimpleNamespace(d_sae=100, has_numbers=lambda index: True))
    found = control_features(SimpleNamespace(d_sae=100, has_numbers=lambda index: index != drawn[2]))
    assert len(drawn) == len(found) == CONTROL_FEATURES + 1
    assert found[:-1] == [index for index in drawn if index != drawn[2]]
