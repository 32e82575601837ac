"""What vectors are made from, and hand-made features whose answer is known, the whole way on tiny models.

The thirty tokens of a group share a direction among the embeddings; all tokens share another one, as in real models
(without it the group alone would say where the centroid lies). There are features that fire on exactly one token, on
the group, and on some tokens without a reason.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import N_ROWS, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.features import (
    Resolved,
    ScannedSource,
    compared,
    feature_source,
    feature_sources,
    missing_scan,
    resolve,
    vectors_of,
    with_weights,
)
from multitool.jobs.local import scan_if_missing, token_table
from multitool.jobs.token_table import TokenTable
from multitool.model.residual_stream import residuals
from multitool.recipes.directions import DIRECTIONS, Direction
from multitool.recipes.recipe import ListRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.vectors.scan_directions import mapped_half

TOKEN = 77
GROUP = range(100, 130)
ONE, KNOWN_GROUP, NOISE, SILENT = range(4)
HOOKS = ("hook_embed", "blocks.0.hook_resid_post")


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SHARED = torch.nn.functional.normalize(random(32, seed=5), dim=0)


@dataclass(frozen=True)
class World:
    library: Library
    saes: dict[str, str]  # by hook

    def recipe(self, hook: str, feature: int, **settings) -> VectorRecipe:
        return VectorRecipe(sae=self.saes[hook], feature=feature, **settings)

    def resolved(self, hook: str, feature: int, **settings) -> Resolved:
        return resolve(self.library, self.recipe(hook, feature, **settings))

    def table(self, hook: str, feature: int, weights: str, measure: str = "score") -> TokenTable:
        recipe = self.recipe(hook, feature, weights=weights)
        scan_if_missing(self.library, recipe, always=True)
        return token_table(self.library, recipe, ListRecipe(measure=measure), evidence=True)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def world(cached, tmp_path_factory, tokenizer) -> World:
    folder = tmp_path_factory.mktemp("world")
    model = tiny_model("llama")
    E = model.get_input_embeddings().weight
    common = random(32, seed=9)
    common -= (common @ SHARED) * SHARED
    E += 3 * common / common.norm()
    E[GROUP.start : GROUP.stop] += 3 * SHARED
    write_model(folder / "model", model, tokenizer)
    saes = {}
    for hook in HOOKS:
        ids = torch.tensor([[0, token_id] for token_id in range(N_ROWS)])
        saes[hook] = str(_sae(folder / hook, residuals(model, hook, input_ids=ids)[:, -1], hook, str(folder / "model")))
    return World(Library(dtype="float32", device="cpu", allow_folder=True, bars=False), saes)


def _sae(folder, x: torch.Tensor, hook: str, model: str):
    """The features above, for residuals ``x`` of all tokens."""
    group = torch.zeros(N_ROWS, dtype=torch.bool)
    group[GROUP.start : GROUP.stop] = True
    # What is common to the group's residuals and to no others: by least squares, as after a layer it may be bent.
    wide = torch.cat([x, torch.ones(N_ROWS, 1)], dim=1)
    solved = torch.linalg.lstsq(wide, group.float()[:, None]).solution[:-1, 0]
    # A token's own direction, with what all residuals have in common taken out.
    own = torch.linalg.solve(x.T.cov(), x[TOKEN] - x.mean(0))
    columns = torch.stack([own, SHARED if hook == "hook_embed" else solved, random(32, seed=6),
                           random(32, seed=7)], dim=1)
    fires = x @ columns
    rest = fires[torch.arange(N_ROWS) != TOKEN, ONE].max()
    assert fires[TOKEN, ONE] > rest
    b_enc = -torch.stack([
        (fires[TOKEN, ONE] + rest) / 2,
        (fires[group, KNOWN_GROUP].mean() + fires[~group, KNOWN_GROUP].mean()) / 2,
        fires[:, NOISE].quantile(0.95),
        fires[:, SILENT].max() + 1,
    ])
    W_dec = columns.T.clone()
    W_dec[NOISE] = random(32, seed=8)
    write_sae(folder, W_enc=columns, W_dec=W_dec, hook=hook, model=model)
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file(tensors | {"b_enc": b_enc}, folder / "sae_weights.safetensors")
    return folder


def listed(table: TokenTable) -> list[int]:
    return [row[2] for row in table.rows]


# A feature that is exactly one token


@pytest.mark.parametrize("hook", HOOKS)
def test_a_feature_of_one_token_lists_that_token_alone_by_activation(world, hook):
    table = world.table(hook, ONE, "vocabulary", "activation")
    assert listed(table) == [TOKEN]
    assert table.rows[0][-1] > 0


@pytest.mark.parametrize("hook", HOOKS)
def test_its_vocabulary_direction_points_at_the_tokens_embedding_whatever_the_layer(world, hook):
    world.table(hook, ONE, "vocabulary")
    target = world.resolved(hook, ONE, weights="vocabulary")
    source, space = feature_source(target), target.subject.space
    assert torch.cosine_similarity(source.weights.vocabulary, space.E[TOKEN] - space.centroid, dim=0) > 0.99
    assert source.strongest_ids.tolist() == [TOKEN]


@pytest.mark.parametrize("hook", HOOKS)
def test_its_list_has_the_token_first_and_cannot_be_judged_by_it(world, hook):
    table = world.table(hook, ONE, "vocabulary")
    assert listed(table)[0] == TOKEN
    found = table.evidence
    assert (found.left_out, found.firing, found.verdict) == (1, 0, "unknown")
    assert "besides those that the list was made from" in found.sentence


# A feature of a known group


def test_the_encoders_list_of_a_known_group_agrees(world):
    table = world.table("hook_embed", KNOWN_GROUP, "encoder")
    assert set(listed(table)[:10]) <= set(GROUP)
    found = table.evidence
    assert (found.verdict, found.hits, found.left_out, found.beaten_by) == ("agrees", 10, 0, 0)
    assert found.firing == pytest.approx(len(GROUP), abs=3)
    assert found.auroc > 0.97
    assert found.auroc_chance == pytest.approx(0.5, abs=0.15)
    assert found.hits_chance < 4


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("weights", ["vocabulary", "mapped"])
def test_directions_from_the_vocabulary_find_the_rest_of_a_group(world, hook, weights):
    table = world.table(hook, KNOWN_GROUP, weights)
    found = table.evidence
    assert found.left_out == (20 if weights == "vocabulary" else int(mapped_half(N_ROWS)[1:300].sum()))
    assert found.verdict == "agrees"
    assert found.auroc > (0.9 if hook == "hook_embed" else 0.7)
    assert found.auroc_chance < 0.65


# Noise


@pytest.mark.parametrize("hook", HOOKS)
def test_a_list_that_has_nothing_to_do_with_what_fires_is_not_to_be_trusted(world, hook):
    found = world.table(hook, NOISE, "decoder").evidence
    assert 8 <= found.firing <= 20
    assert found.verdict == "no"
    assert found.auroc == pytest.approx(0.5, abs=0.15)


# What stands where


def test_the_scan_is_missing_until_it_is_done(world, monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    for hook in HOOKS:
        target = world.resolved(hook, ONE, weights="vocabulary")
        task = missing_scan(target)
        assert (task.hook, task.n_tokens, task.bos_id) == (hook, N_ROWS, 0)
        assert missing_scan(world.resolved(hook, ONE, weights="mapped")) == task
        assert missing_scan(world.resolved(hook, ONE, weights="mix"), always=True) == task
        *_, done = world.library.do(task)
        assert done == N_ROWS
        assert missing_scan(target) is None
        assert missing_scan(target, always=True) is None


def test_directions_of_the_saes_own_weights_need_no_scan(world, monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    for weights in (None, "encoder", "decoder", "mix"):
        assert missing_scan(world.resolved("hook_embed", ONE, weights=weights)) is None
    assert not list(tmp_path.iterdir())


def test_the_vocabulary_cannot_be_used_before_it_is_scanned(world, monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    target = world.resolved("hook_embed", ONE)
    with pytest.raises(ValueError, match="must be scanned first"):
        feature_sources(target, target.sae, [ONE], scan=True)
    source, = feature_sources(target, target.sae, [ONE], scan=False)
    assert not isinstance(source, ScannedSource)


def test_a_feature_that_is_not_there_is_refused_before_any_scan(world):
    with pytest.raises(UserError, match="feature is 4; .* has 4 features"):
        world.resolved("hook_embed", 4, weights="vocabulary")


def test_an_sae_whose_activations_are_not_read_is_refused_before_any_scan(world, monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    entry = world.library.find(world.saes["hook_embed"])
    tensors = load_file(entry.folder / "sae_weights.safetensors")
    folder = write_sae(tmp_path / "sae", W_enc=tensors["W_enc"], W_dec=tensors["W_dec"], hook="hook_embed",
                       model=entry.model, architecture="topk")
    target = resolve(world.library, VectorRecipe(sae=str(folder), feature=ONE, weights="vocabulary"))
    with pytest.raises(UserError, match="has no k"):
        scan_if_missing(world.library, target.recipe)
    assert not list(tmp_path.glob("cache/scans/*"))


def test_a_recipe_without_weights_gets_those_that_suit_its_sae(world):
    assert with_weights(world.library, world.recipe("hook_embed", ONE)).weights == "encoder"
    assert with_weights(
        world.library, VectorRecipe(sae="demo/blocks.1.hook_resid_post", feature=0)
    ).weights == "vocabulary"
    named = world.recipe("hook_embed", ONE, weights="mix")
    assert with_weights(world.library, named) is named


def sources(world, hook: str = "hook_embed"):
    world.table(hook, ONE, "vocabulary")
    target = world.resolved(hook, ONE)
    return target.subject, feature_sources(target, target.sae, range(4), scan=True)


def test_a_feature_that_no_token_fires_has_no_vocabulary_direction(world):
    subject, found = sources(world)
    recipe = world.recipe("hook_embed", SILENT, weights="vocabulary")
    assert [source.index for source, _ in vectors_of(found, subject, recipe)] == [ONE, KNOWN_GROUP, NOISE]
    with pytest.raises(UserError, match="No token fires this feature"):
        world.table("hook_embed", SILENT, "vocabulary")


def test_special_tokens_and_rows_without_a_token_are_never_counted(world):
    _, found = sources(world)
    assert not found[0].countable[0]
    assert not found[0].countable[300:].any()
    assert found[0].countable[1:300].all()


def test_each_kind_of_direction_says_what_it_was_made_from(world):
    subject, found = sources(world)
    one = found[ONE]

    def by(weights: str, **settings) -> VectorRecipe:
        return world.recipe("hook_embed", ONE, weights=weights, **settings)

    assert one.made_from(by("vocabulary"), subject).nonzero()[0].tolist() == [TOKEN]
    assert one.made_from(by("mapped"), subject).sum() == N_ROWS // 2
    for weights in ("encoder", "random", "centroid"):
        assert not one.made_from(by(weights), subject).any()
    # The map has seen tokens but no feature, so texts may be judged on all of them.
    assert not one.used_in_texts(by("mapped"), subject).any()
    assert one.used_in_texts(by("vocabulary"), subject).nonzero()[0].tolist() == [TOKEN]
    # A vector that is a token says nothing of whether that token fires the feature.
    assert one.used_in_texts(by("tokens", tokens="#5 - #7"), subject).nonzero()[0].tolist() == [5, 7]


def test_what_any_direction_was_made_from_never_judges_it(world, monkeypatch):
    subject, found = sources(world)
    # Of its own, and of a kind that somebody adds.
    made = Direction(("vocabulary", "decoder"), lambda vocabulary, decoder, share: vocabulary, "both", from_scan=True)
    monkeypatch.setitem(DIRECTIONS, "vocabulary", made)
    recipe = world.recipe("hook_embed", ONE, weights="vocabulary")
    assert found[ONE].made_from(recipe, subject).nonzero()[0].tolist() == [TOKEN]
    monkeypatch.setitem(DIRECTIONS, "decoder", replace(made, made_from=("mapped", "vocabulary")))
    recipe = world.recipe("hook_embed", ONE, weights="decoder")
    assert found[ONE].made_from(recipe, subject)[TOKEN]
    assert found[ONE].made_from(recipe, subject).sum() >= N_ROWS // 2


def test_what_has_nothing_of_a_feature_is_compared_with_others_by_the_weights_that_suit(world):
    own = world.resolved("hook_embed", ONE, weights="mix", pca=(0.1,))
    assert compared(own) is own
    tokens = world.resolved("hook_embed", ONE, weights="tokens", tokens="#5", pca=(0.1,))
    assert compared(tokens).recipe == world.recipe("hook_embed", ONE, weights="encoder", pca=(0.1,))
