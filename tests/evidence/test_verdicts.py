"""Evidence from plain numbers: by hand, and what becomes of it where there is nothing but chance."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from multitool.evidence.verdicts import (
    DefinitionScores,
    Others,
    TreeEvidence,
    definition_scores,
    list_evidence,
    strongest,
    written_evidence,
)
from multitool.trees.document import feature_maximum, judged_definitions

V = 1000


def chosen(*token_ids: int, n: int = V) -> np.ndarray:
    return np.isin(np.arange(n), token_ids)


def firing(*token_ids: int, n: int = V) -> np.ndarray:
    """Activations of 1 on these tokens."""
    return chosen(*token_ids, n=n).astype(np.float32)


def random_scores(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, V))


EVERY, NONE = np.ones(V, dtype=bool), np.zeros(V, dtype=bool)
FIRST_SIX = firing(*range(6))
IN_ORDER = np.arange(V, dtype=float)  # scores of a list that goes through the tokens by id


def judged(scores: np.ndarray, activations=FIRST_SIX, *, which=EVERY, made_from=NONE, randoms: int = 20, in_texts=()):
    scores = np.concatenate([scores[None], random_scores(randoms, seed=1)])
    return list_evidence(scores, activations, which, made_from, in_texts)


# Token lists


def test_a_list_of_four_tokens_and_two_random_ones_in_the_head():
    scores = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]], dtype=float)
    found = list_evidence(scores, firing(0, 2, n=4), np.ones(4, bool), np.zeros(4, bool))
    assert (found.judged_on, found.left_out, found.firing) == (4, 0, 2)
    assert (found.hits, found.hits_chance) == (2, 2)  # all four are among the first ten
    assert found.auroc == 3 / 4
    assert found.auroc_chance == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    backwards = (1 / 2 + 2 / 4) / 2
    assert found.average_precision_chance == pytest.approx(((1 / 1 + 2 / 3) / 2 + backwards) / 2)
    assert found.beaten_by == 1 / 2  # the first random one is as good


def test_a_list_that_has_what_fires_at_its_top_agrees():
    found = judged(IN_ORDER)
    assert (found.hits, found.firing, found.auroc, found.average_precision, found.beaten_by) == (6, 6, 1, 1, 0)
    assert found.hits_chance < 1
    assert found.auroc_chance == pytest.approx(0.5, abs=0.1)
    assert found.verdict == "agrees"
    assert found.sentence.startswith("This list agrees with what fires the feature: 6 of its first 10 tokens fire it")


def test_a_list_that_has_what_fires_further_down_but_not_by_chance_agrees_in_part():
    found = judged(IN_ORDER, firing(*range(20, 60)))
    assert (found.hits, found.beaten_by) == (0, 0)
    assert found.auroc > 0.9
    assert found.verdict == "partly"
    assert "only further down: 0 of its first 10" in found.sentence


def test_a_list_that_has_what_fires_at_its_bottom_is_not_to_be_trusted():
    found = judged(-IN_ORDER)
    assert (found.auroc, found.beaten_by, found.verdict) == (0, 1, "no")
    assert found.sentence.startswith("Do not trust this list")


def test_two_hits_are_too_few_and_hits_that_chance_has_too_prove_nothing():
    two = judged(IN_ORDER, firing(0, 1, *range(20, 60)))
    assert (two.hits, two.verdict) == (2, "partly")
    half = judged(IN_ORDER, firing(*range(500)))  # of any ten tokens five fire
    assert (half.hits, half.verdict) == (10, "agrees")
    most = judged(IN_ORDER, firing(*range(600)))
    assert most.hits_chance > 5
    assert (most.hits, most.verdict) == (10, "partly")


@pytest.mark.parametrize(
    ("n", "says"), [(0, "no tokens fire the feature"), (1, "1 token fire"), (4, "4 tokens fire the feature")]
)
def test_a_list_is_not_judged_where_fewer_than_five_tokens_fire(n, says):
    found = judged(IN_ORDER, firing(*range(n)))
    assert (found.firing, found.verdict) == (n, "unknown")
    assert found.sentence.startswith("This list cannot be judged")
    assert says in found.sentence
    assert "besides" not in found.sentence


def test_where_nothing_fires_there_are_no_figures():
    found = judged(IN_ORDER, firing())
    figures = (found.auroc, found.auroc_chance, found.average_precision, found.average_precision_chance)
    assert (*figures, found.beaten_by) == (None,) * 5
    assert found.hits == 0


def test_a_list_of_tokens_that_all_fire_is_as_good_as_any_and_so_not_to_be_trusted():
    found = judged(IN_ORDER, firing(*range(V)))
    assert (found.auroc, found.average_precision, found.beaten_by, found.verdict) == (None, 1, 1, "no")


def test_no_list_is_judged_on_what_its_direction_was_made_from():
    # The first six fire and were used; what else fires stands at the bottom.
    found = judged(IN_ORDER, firing(*range(6), *range(990, 1000)), made_from=chosen(*range(6)))
    assert (found.judged_on, found.left_out, found.firing, found.hits) == (994, 6, 10, 0)
    assert found.verdict == "no"


def test_a_list_is_unknown_where_nothing_else_fires_than_it_was_made_from():
    found = judged(IN_ORDER, made_from=chosen(*range(6)))
    assert (found.left_out, found.firing, found.verdict) == (6, 0, "unknown")
    assert "no tokens besides those that the list was made from fire" in found.sentence


def test_tokens_of_no_text_and_rows_of_zeros_are_not_judged():
    scores = IN_ORDER.copy()
    scores[7] = np.inf
    found = judged(scores, which=~chosen(0, 1, 2), made_from=chosen(2, 3))
    assert (found.judged_on, found.firing) == (V - 3 - 1 - 1, 2)  # 4 and 5 are left
    assert found.left_out == 1, "only what would have been judged is left out"


def test_the_tokens_of_real_texts_come_with_their_places_in_the_whole_list():
    found = judged(IN_ORDER, made_from=chosen(1), in_texts=[5, 0, 999])
    assert found.in_texts == ((5, 6), (0, 1), (999, 1000))


def test_a_list_shorter_than_ten_is_counted_whole():
    found = judged(IN_ORDER, which=chosen(*range(8)))
    assert (found.judged_on, found.hits) == (8, 6)


def test_the_evidence_for_a_list_is_plain_json_without_the_activations():
    found = judged(IN_ORDER, in_texts=[3])
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["verdict"] == "agrees"
    assert data["sentence"] == found.sentence
    assert (data["hits"], data["auroc"], data["in_texts"]) == (6, 1.0, [[3, 4]])
    assert "activations" not in data
    json.dumps(judged(IN_ORDER, firing()).to_dict(), allow_nan=False)


# Token lists by lens


def written(changes, scores=IN_ORDER, *, which=EVERY, other_end: bool = False):
    scores = np.concatenate([scores[None], random_scores(20, seed=1)])
    return written_evidence(scores, np.asarray(changes, dtype=np.float32), which, other_end=other_end)


def test_what_a_feature_writes_are_the_hundred_tokens_that_rise_most():
    found = written(np.arange(V, 0, -1) / V)
    assert (found.judged_on, found.rising, found.hits, found.auroc, found.average_precision) == (V, 100, 10, 1, 1)
    assert (found.largest_change, found.least_change) == (pytest.approx(1), pytest.approx(0.901))
    assert found.verdict == "agrees"
    assert "of its first 10 tokens 10 are among the 100 that become more probable than all others" in found.sentence
    assert found.hits_chance == pytest.approx(1, abs=0.6) and 0.45 < found.auroc_chance < 0.55


def test_tokens_that_do_not_rise_are_not_written_and_those_that_are_not_judged_do_not_count():
    changes = np.where(np.arange(V) < 7, 0.5, -0.1)
    assert (written(changes).rising, written(changes).hits) == (7, 7)
    rest = written(changes, which=~chosen(0, 1))
    assert (rest.judged_on, rest.rising, rest.hits) == (V - 2, 5, 5)
    none = written(changes, which=~chosen(*range(4)))
    assert (none.rising, none.verdict) == (3, "unknown") and "finds 3 tokens more probable" in none.sentence
    never = written(-np.ones(V))
    assert never.verdict == "unknown" and never.least_change is None and "no tokens more" in never.sentence
    json.dumps(never.to_dict(), allow_nan=False)


def test_the_other_end_of_a_list_is_judged_by_what_falls():
    found = written(np.arange(V) - V, other_end=True)
    assert (found.hits, found.verdict) == (10, "agrees") and "become less probable than all others" in found.sentence
    assert (found.largest_change, found.least_change) == (-V, -V + 99)


def test_a_list_by_lens_that_finds_them_no_better_than_random_ones_is_not_to_be_trusted():
    found = written(np.random.default_rng(2).random(V))
    assert found.verdict == "no" and "lists of random directions" in found.sentence


def test_a_list_by_lens_may_agree_only_further_down():
    changes = np.zeros(V)
    changes[10:110] = 1
    found = written(changes)
    assert (found.hits, found.verdict) == (0, "partly") and "only further down" in found.sentence


def test_the_evidence_for_a_list_by_lens_is_plain_json_without_the_changes():
    data = json.loads(json.dumps(written(np.arange(V, 0, -1)).to_dict(), allow_nan=False))
    assert list(data) == ["judged_on", "rising", "hits", "hits_chance", "auroc", "auroc_chance", "average_precision",
                          "average_precision_chance", "beaten_by", "largest_change", "least_change", "verdict",
                          "sentence"]


def test_random_lists_hardly_ever_agree():
    """A random list beats twenty others in one case of 21, and seldom has three hits besides."""
    verdicts = Counter()
    for seed in range(25):
        random = np.random.default_rng([7, seed])
        fires = (random.random(V) < 0.05).astype(np.float32)
        verdicts[list_evidence(random.random((21, V)), fires, EVERY, NONE).verdict] += 1
    assert verdicts["agrees"] <= 1
    assert verdicts["no"] >= 22
    assert not verdicts["unknown"]


# Definitions


def test_three_definitions_and_two_features_in_the_head():
    # Feature 0 was defined; on its two definitions it fires with 4 and 0, on another's one with 1.
    own = np.array([[4.0, 9.0], [0.0, 9.0]])
    others = np.array([[1.0, 9.0]])
    found = definition_scores(own, Others(others), 0)
    assert (found.hits, found.n_definitions, found.hit_rate) == (1, 2, 1 / 2)
    assert (found.hits_others, found.n_others, found.hit_rate_chance) == (1, 1, 1)
    assert found.auroc == 1 / 2  # 4 lies above 1, 0 below
    assert (found.rank, found.n_features) == (1, 2)  # 2 - 1 against 9 - 9
    assert definition_scores(own, Others(others), 1).rank == 2, "what fires on everything does not come first"


def test_two_own_definitions_against_one_by_equal_activations_are_a_tie():
    found = definition_scores(np.zeros((2, 5)), Others(np.zeros((1, 5))), 3)
    assert (found.hit_rate, found.hit_rate_chance, found.auroc) == (0, 0, 0.5)
    assert found.rank == 3  # of five equals


def test_by_chance_the_auroc_is_one_half_the_rank_is_any_and_one_in_a_hundred_agrees():
    n_features, draws = 200, 500
    aurocs, ranks, verdicts = [], [], Counter()
    for seed in range(draws):
        random = np.random.default_rng([3, seed])
        # Sparse and not negative, as activations are.
        own, others = (np.maximum(random.normal(-0.5, 1, (n, n_features)), 0) for n in (10, 160))
        found = definition_scores(own, Others(others), int(random.integers(n_features)))
        aurocs.append(found.auroc)
        ranks.append(found.rank)
        verdicts[evidence(scores=found).verdict] += 1
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.05)
    assert np.mean(ranks) == pytest.approx((n_features + 1) / 2, rel=0.1)
    quarters = np.histogram(ranks, bins=4, range=(0.5, n_features + 0.5))[0]
    assert (abs(quarters - draws / 4) < 40).all()
    assert verdicts["agrees"] <= 0.03 * draws
    assert verdicts["agrees"] + verdicts["partly"] <= 0.08 * draws
    assert not verdicts["unknown"]


# No circle: positions of tokens that a direction was made from


def test_the_strongest_activation_of_each_feature_in_a_text():
    activations = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0]])
    assert strongest(activations, (5, 6, 7), NONE).tolist() == [2, 3]


def test_positions_of_tokens_that_the_direction_was_made_from_never_count():
    activations = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0]])
    assert strongest(activations, (5, 6, 7), chosen(7)).tolist() == [1, 3]
    assert strongest(activations, (5, 6, 7), chosen(6, 7)).tolist() == [1, 0]
    assert strongest(activations, (6, 6, 7), chosen(6)).tolist() == [2, 1]


def test_a_text_of_nothing_else_fires_nothing():
    nothing = strongest(np.ones((2, 3), dtype=np.float32), (5, 5), chosen(5))
    assert nothing.tolist() == [0, 0, 0]
    assert nothing.dtype == np.float32


# Trees


def scores(**changes) -> DefinitionScores:
    good = {
        "hits": 9, "n_definitions": 10, "hits_others": 16, "n_others": 160, "auroc": 0.95, "rank": 3.0,
        "n_features": 16_384,
    }  # fmt: skip
    return DefinitionScores(**(good | changes))


def evidence(**changes) -> TreeEvidence:
    good = {
        "scores": scores(), "fires_at_all": 0.9, "lift_centroid": 2.0, "lift_random": 1.5, "entropy": 3.0,
        "entropy_centroid": 4.0, "self_similarity": 0.2, "self_similarity_centroid": 0.1,
        "encoder_decoder_cosine": 0.5, "lists_shared": 40, "left_out": 0,
    }  # fmt: skip
    return TreeEvidence(**(good | changes))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "agrees"),
        ({"rank": 163.0}, "agrees"),  # 1 % of 16,384 are 163.84
        ({"rank": 164.0}, "partly"),
        ({"rank": 819.0}, "partly"),  # 5 % are 819.2
        ({"rank": 820.0}, "no"),
        ({"hits": 1}, "no"),  # 1 of 10, no more than on others'
        ({"hits": 2}, "partly"),  # more than on others', and first of all, but too few
        ({"hits": 3}, "agrees"),
        ({"hits": 2, "n_definitions": 2}, "partly"),  # two are too few even if they are all
        ({"hits": 2, "rank": 820.0}, "no"),
        ({"auroc": 0.5}, "no"),
        ({"hits": 0, "hits_others": 0, "auroc": 0.5}, "no"),
        ({"n_features": 50, "rank": 1.0}, "partly"),  # the best of 50 is no better than one in 50
    ],
)
def test_the_verdict_on_a_tree_goes_by_the_place_among_all_features(changes, verdict):
    assert evidence(scores=scores(**changes)).verdict == verdict


def test_the_sentence_of_a_tree_that_agrees_has_its_figures():
    assert evidence().sentence == (
        "This tree agrees with what fires the feature. The feature fires on 9 of these 10 definitions (on those of "
        "other features on 16 of 160) and is number 3 of 16,384 when all features are asked."
    )


def test_the_sentence_of_few_hits_is_the_bare_count():
    assert evidence(scores=scores(hits=1, hits_others=0)).sentence == (
        "The feature fires on 1 of these 10 definitions (on those of other features on 0 of 160) and is number 3 of "
        "16,384 when all features are asked: too few to vouch for the rest of the tree."
    )
    one = evidence(scores=scores(hits=1, n_definitions=1)).sentence
    assert one.startswith("The feature fires on its one definition (")


def test_the_sentence_of_a_tree_that_agrees_in_part():
    assert evidence(scores=scores(rank=500.0)).sentence.startswith("This tree agrees in part with what fires the")


def test_the_sentence_of_a_tree_not_to_be_trusted_has_its_figures_too():
    sentence = evidence(scores=scores(hits=0, auroc=0.5, rank=8_000.0)).sentence
    assert sentence.startswith("Do not trust this tree. The feature fires on none of these 10 definitions (")
    assert "number 8,000 of 16,384" in sentence


def test_a_tree_without_a_definition_to_read_is_unknown():
    found = evidence(scores=None)
    assert found.verdict == "unknown"
    assert found.sentence == "This tree cannot be judged: it has no definition to read."


def test_a_tree_is_unknown_where_only_tokens_fire_that_its_direction_was_made_from():
    silent = scores(hits=0, hits_others=0, auroc=0.5, rank=8_000.0)
    found = evidence(scores=silent, left_out=20, fires_at_all=0.7)
    assert found.verdict == "unknown"
    assert "fires only on tokens that its direction was made from, which proves nothing" in found.sentence


def test_a_tree_is_wrong_where_nothing_fires_at_all_whatever_was_left_out():
    silent = scores(hits=0, hits_others=0, auroc=0.5, rank=8_000.0)
    assert evidence(scores=silent, left_out=20, fires_at_all=0.0).verdict == "no"
    # Without a vocabulary direction nothing is left out, so nothing excuses it.
    assert evidence(scores=silent, left_out=0, fires_at_all=0.7).verdict == "no"


def test_the_evidence_for_a_tree_is_flat_plain_json():
    found = evidence(judged=(("rain", 2.5), ("a", 0.0)), feature_maximum=5.0)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["hits"], data["n_definitions"], data["hit_rate"], data["rank"]) == (9, 10, 0.9, 3.0)
    assert (data["lift_centroid"], data["verdict"]) == (2.0, "agrees")
    assert (data["hits_others"], data["n_others"], data["hit_rate_chance"]) == (16, 160, 0.1)
    assert data["sentence"] == found.sentence
    assert (data.pop("judged_texts"), data.pop("judged_activations")) == (["rain", "a"], [2.5, 0.0])
    assert "scores" not in data and "judged" not in data
    assert all(isinstance(value, (str, int, float)) for value in data.values())
    assert judged_definitions(found.to_dict()) == [("rain", 2.5), ("a", 0.0)]
    assert feature_maximum(found.to_dict()) == 5


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, []),
        ({}, []),
        ({"judged_texts": ["a"]}, []),
        ({"judged_texts": "ab", "judged_activations": [1, 2]}, []),
        ({"judged_texts": ["a", 7, "b"], "judged_activations": [1, 2]}, [("a", 1.0)]),
        ({"judged_texts": ["a", "b"], "judged_activations": ["much", True]}, []),
    ],
)
def test_of_somebodys_file_only_what_is_a_judged_definition_counts(written, read):
    assert judged_definitions(written) == read


@pytest.mark.parametrize("most", [None, 0, -1, "5", True, float("nan")])
def test_a_maximum_that_is_none_is_not_known(most):
    assert feature_maximum({"feature_maximum": most}) is None
    assert feature_maximum(None) is None


def test_the_evidence_for_a_tree_without_definitions_has_the_same_fields():
    empty = evidence(scores=None, self_similarity=None, self_similarity_centroid=None).to_dict()
    assert empty.keys() == evidence().to_dict().keys()
    assert (empty["hit_rate"], empty["auroc"], empty["rank"], empty["self_similarity"]) == (None,) * 4


def test_every_verdict_has_a_sentence_of_its_own():
    some = [evidence(), evidence(scores=scores(rank=500.0)), evidence(scores=scores(hits=2)),
            evidence(scores=scores(rank=9e3)), evidence(scores=None)]
    assert [found.verdict for found in some] == ["agrees", "partly", "partly", "no", "unknown"]
    assert len({found.sentence for found in some}) == 5
    assert [found.sentence.count("agrees") for found in some] == [1, 1, 0, 0, 0]
    lists = [judged(IN_ORDER), judged(IN_ORDER, firing(*range(20, 60))), judged(-IN_ORDER), judged(IN_ORDER, firing())]
    assert [found.verdict for found in lists] == ["agrees", "partly", "no", "unknown"]
    assert len({found.sentence for found in lists}) == 4
    assert replace(lists[0], firing=4).verdict == "unknown"
