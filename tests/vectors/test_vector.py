"""The feature vector, on numbers that one can do in the head.

The four tokens stand around (1, 1), two at a distance of 3 along x and two at a distance of 1 along y: the mean
distance is 2, the first component is x, the second y.
"""

import math

import pytest
import torch

from multitool.errors import UserError
from multitool.recipes.directions import DIRECTIONS, needs_scan
from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.vector import FeatureWeights, feature_heading, mix_components, placed

SPACE = EmbeddingSpace(torch.tensor([[4.0, 1.0], [-2.0, 1.0], [1.0, 2.0], [1.0, 0.0]]))
X, Y = (1.0, 0.0), (0.0, 1.0)


def weights(encoder=(3.0, 4.0), decoder=(0.0, 5.0)) -> FeatureWeights:
    return FeatureWeights(torch.tensor(encoder), torch.tensor(decoder))


def feature_vector(weights: FeatureWeights, space: EmbeddingSpace, *, kind: str, encoder_share=0.5, **place):
    return placed(feature_heading(vars(weights).__getitem__, space, kind, encoder_share), space, **place)


def v(**settings) -> list[float]:
    return feature_vector(settings.pop("weights", weights()), SPACE, **({"kind": "encoder"} | settings)).v.tolist()


def test_the_encoders_direction_starts_at_the_centroid_and_is_as_long_as_tokens_are_far():
    assert v() == pytest.approx([1 + 2 * 0.6, 1 + 2 * 0.8])


def test_the_decoders_direction_is_used_when_asked_for():
    assert v(kind="decoder") == pytest.approx([1, 1 + 2])


def test_the_length_of_the_weights_does_not_matter():
    assert v(weights=weights(encoder=(300.0, 400.0))) == pytest.approx(v())
    assert v(weights=weights(encoder=(3e-9, 4e-9))) == pytest.approx(v())


def test_without_the_centroid_the_vector_is_the_scaled_direction():
    assert v(centroid=False) == pytest.approx([2 * 0.6, 2 * 0.8])


def test_a_given_scale_replaces_the_mean_token_distance():
    assert v(scale=10) == pytest.approx([1 + 6, 1 + 8])


def test_the_result_tells_its_length_and_distances():
    vector = feature_vector(weights(), SPACE, kind="encoder", scale=10)
    assert vector.norm == pytest.approx(math.hypot(7, 9))
    assert vector.distance_from_centroid == pytest.approx(10)
    assert vector.mean_token_distance == pytest.approx(2)
    assert vector.scale == 10
    assert feature_vector(weights(), SPACE, kind="encoder").scale == pytest.approx(2)


def test_without_the_centroid_the_distance_is_still_measured_from_it():
    vector = feature_vector(weights(encoder=X), SPACE, kind="encoder", scale=4, centroid=False)
    assert vector.norm == pytest.approx(4)
    assert vector.distance_from_centroid == pytest.approx(math.hypot(4 - 1, 0 - 1))


def test_a_mix_takes_both_directions_at_unit_length_and_is_a_unit_again():
    half = DIRECTIONS["mix"].make(torch.tensor([100.0, 0.0]), torch.tensor([0.0, 0.01]), share=0.5)
    assert half.tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])


@pytest.mark.parametrize(("share", "direction"), [(1.0, (0.6, 0.8)), (0.0, Y), (0.75, (0.45, 0.85))])
def test_the_encoders_share_goes_from_the_decoder_to_the_encoder(share, direction):
    mixed = DIRECTIONS["mix"].make(weights().encoder, weights().decoder, share=share)
    assert mixed.tolist() == pytest.approx([entry / math.hypot(*direction) for entry in direction])


def test_components_are_mixed_in_by_the_published_formula_without_a_new_normalisation():
    # 0.75 (0, 1) + 0.25 (1, 0), twice, from (1, 1)
    assert v(kind="decoder", pca=[0.25]) == pytest.approx([1.5, 2.5])
    vector = feature_vector(weights(), SPACE, kind="decoder", pca=[0.25])
    assert vector.distance_from_centroid == pytest.approx(2 * math.hypot(0.25, 0.75))


def test_every_weight_goes_to_its_own_component():
    # 0.25 (1, 0) is left of the direction, 0.25 (1, 0) is the first component, 0.5 (0, 1) the second.
    assert v(weights=weights(encoder=X), pca=[0.25, 0.5]) == pytest.approx([1 + 2 * 0.5, 1 + 2 * 0.5])


def test_a_negative_weight_lengthens_the_direction():
    # 2 (0, 1) - (1, 0)
    assert v(kind="decoder", pca=[-1.0]) == pytest.approx([1 - 2, 1 + 4])


def test_without_weights_for_components_none_are_computed(monkeypatch):
    def compute(*_):
        raise AssertionError("components were computed")

    monkeypatch.setattr("multitool.vectors.embedding.principal_components", compute)
    space = EmbeddingSpace(SPACE.E)
    feature_vector(weights(), space, kind="encoder")
    with pytest.raises(AssertionError, match="were computed"):
        feature_vector(weights(), space, kind="encoder", pca=[0.5])
    assert mix_components(torch.tensor([1.0, 2.0]), torch.empty(0, 2), []).tolist() == [1, 2]


def test_weights_in_half_precision_are_used_in_single_precision():
    half = FeatureWeights(torch.tensor([3.0, 4.0]).half(), torch.tensor([0.0, 5.0]).half())
    vector = feature_vector(half, SPACE, kind="mix").v
    assert vector.dtype == torch.float32
    assert vector.tolist() == pytest.approx(v(kind="mix"))


@pytest.mark.parametrize("bad", [(0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0)], ids=["zero", "NaN", "infinite"])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "mix"])
def test_weights_that_point_nowhere_are_refused_by_name(kind, bad):
    named = "decoder" if kind == "decoder" else "encoder"
    with pytest.raises(UserError, match=f"The {named} weights .* zero or not finite"):
        v(weights=weights(**{named: bad}), kind=kind)


def test_weights_that_are_not_used_may_be_dead():
    assert v(weights=weights(decoder=(0.0, 0.0))) == v()


def test_a_mix_of_opposite_directions_is_refused():
    with pytest.raises(UserError, match="cancel"):
        v(weights=weights(encoder=X, decoder=(-1.0, 0.0)), kind="mix")


def test_opposite_directions_are_refused_too_when_rounding_leaves_a_little():
    # Three times the same direction, but the unit vectors differ in a last bit: what is left of them is noise.
    encoder = torch.tensor([1.0, 2.0, 3.0])
    opposite = FeatureWeights(encoder, -encoder * 3)
    left = DIRECTIONS["encoder"].make(encoder, share=0) + DIRECTIONS["decoder"].make(-encoder * 3, share=0)
    assert 0 < left.norm() < 1e-6, "the example should leave a little"
    with pytest.raises(UserError, match="cancel"):
        feature_vector(opposite, EmbeddingSpace(torch.eye(3)), kind="mix")


def test_a_component_that_cancels_the_direction_is_refused():
    with pytest.raises(UserError, match="cancel"):
        v(weights=weights(encoder=(-1.0, 0.0)), pca=[0.5])


def test_more_weights_than_components_are_refused_with_both_numbers():
    with pytest.raises(UserError, match="pca has 3 weights.* 2 components"):
        v(pca=[0.1, 0.1, 0.1])


# Directions from a vocabulary scan


def scanned(vocabulary=(0.0, -3.0), mapped=(-0.3, 0.4)) -> FeatureWeights:
    return FeatureWeights(torch.tensor(X), torch.tensor(Y), torch.tensor(vocabulary), torch.tensor(mapped))


def test_the_vocabularys_direction_is_what_the_tokens_have_in_common():
    assert v(weights=scanned(), kind="vocabulary") == pytest.approx([1, 1 - 2])


def test_the_mapped_direction_is_the_decoders_among_the_embeddings():
    assert v(weights=scanned(), kind="mapped") == pytest.approx([1 - 2 * 0.6, 1 + 2 * 0.8])


def test_two_kinds_of_direction_need_a_scan():
    assert {kind for kind in DIRECTIONS if needs_scan(kind)} == {"vocabulary", "mapped"}


def test_a_feature_that_no_token_fires_is_told_what_else_there_is():
    with pytest.raises(UserError, match="No token fires this feature when it stands alone.* Use decoder or mapped"):
        v(weights=scanned(vocabulary=(0.0, 0.0)), kind="vocabulary")


def test_a_dead_decoder_cannot_be_mapped():
    with pytest.raises(UserError, match="The decoder weights of this feature are all zero"):
        v(weights=scanned(mapped=(0.0, 0.0)), kind="mapped")


def test_a_direction_from_the_vocabulary_does_not_need_the_saes_own_weights():
    dead = FeatureWeights(torch.zeros(2), torch.zeros(2), torch.tensor((0.0, 7.0)))
    assert v(weights=dead, kind="vocabulary") == pytest.approx([1, 1 + 2])
