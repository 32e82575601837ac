"""What the controls beside tree and list say of a feature, and what they make of what is typed."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from multitool.errors import UserError
from multitool.jobs.candidates import Candidate
from multitool.jobs.components import PrincipalComponent
from multitool.jobs.suggest import Setting
from multitool.page.callers import Callers
from multitool.page.component_controls import COMPONENTS, _line
from multitool.page.feature_choice import feature_choice
from multitool.page.growth_controls import growth_controls, tree_values
from multitool.page.opening import DEMO, Opening
from multitool.page.recipe_controls import check_shows, filled, recipes_shown, values_shown
from multitool.page.settings import ServerSettings
from multitool.page.suggest_tab import setting_chosen
from multitool.page.tree_tab import _with_best, _with_setting
from multitool.page.turns import Turns
from multitool.page.vector_controls import (
    SUITING,
    _distance,
    _suitable,
    _usual_scale,
    _weights_help,
    vector_controls,
    vector_recipe,
    vector_values,
)
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.registry import find_sae


class _Served:
    library = Library(device="cpu")
    settings = ServerSettings()


def tried(feature: int = 150, **candidate) -> Setting:
    vector = VectorRecipe(sae="demo/blocks.6.hook_resid_post", feature=feature, weights="decoder")
    return Setting(SimpleNamespace(candidate=Candidate("decoder", **candidate)), vector, TreeRecipe(), ())


def test_a_setting_that_was_tried_fills_in_the_vector_and_the_injection_and_a_growth_is_asked_for():
    shown = values_shown(_Served.library, VectorRecipe(sae="demo/hook_embed", feature=1), TreeRecipe(cutoff=2e-3))
    controls = dict.fromkeys(shown)
    injecting, turns = tried(inject_layer=0, inject_mode="add", inject_scale=2.0), Turns()
    answer = _with_setting(_Served(), controls, injecting, turns, **shown)
    assert answer["number"] == 1 == turns.asked
    assert (answer["sae"], answer["feature"], answer["weights"]) == (injecting.recipe.sae, "150", "decoder")
    assert (answer["intervene"], answer["inject_layer"], answer["inject_mode"]) == (True, 0, "add")
    assert answer["cutoff"] == "2e-3", "the growth is otherwise as it was"
    # The next one injects nothing: nothing of the one before stays.
    after = {name: answer.get(name, value) for name, value in shown.items()} | {"top_k": shown["top_k"]}
    plain = _with_setting(_Served(), controls, tried(), turns, **after)
    assert (plain["intervene"], plain["inject_layer"]) == (False, -1)


def test_the_best_setting_is_left_alone_where_another_feature_has_been_chosen_meanwhile():
    settings, turns = (tried(), tried(151)), Turns()
    shown = values_shown(_Served.library, settings[0].recipe, TreeRecipe())
    controls = dict.fromkeys(shown)
    assert _with_best(_Served(), controls, turns, settings, **shown)["number"] == 1
    for other in ({"feature": "151"}, {"sae": "demo/hook_embed"}):
        assert _with_best(_Served(), controls, turns, settings, **shown | other) == {"number": -1}
    assert _with_best(_Served(), controls, turns, None, **shown) == {"number": -1}
    assert turns.asked == 1 and not turns.start(-1)


def test_a_row_of_settings_that_is_not_there_is_refused():
    settings = (tried(), tried())
    assert setting_chosen(settings, 1) is settings[1]
    for there, number in ((settings, 2), (settings, -1), (settings, "1"), (None, 0)):
        with pytest.raises(UserError, match="not there any more"):
            setting_chosen(there, number)


@pytest.mark.parametrize(
    ("sae", "kind", "cautioned"),
    [
        ("demo/blocks.6.hook_resid_post", "encoder", True),
        ("demo/blocks.6.hook_resid_post", "vocabulary", False),
        ("demo/hook_embed", "encoder", False),
        ("gpt2-small-res-jb/blocks.3.hook_resid_pre", "decoder", False),
    ],
)
def test_a_layers_own_weights_come_with_a_caution_where_they_point_nowhere(sae, kind, cautioned):
    said = _weights_help(Library(), sae, kind)
    assert DIRECTIONS[kind].help in said
    assert ("point nowhere among the embeddings" in said) == cautioned


def test_what_suits_is_told_of_trees_and_of_lists():
    library = Library()
    deep = _weights_help(library, "demo/blocks.6.hook_resid_post", SUITING)
    assert "<p>Trees by vocabulary: the tokens that fire it" in deep and "<p>Lists by pullback: the encoder, " in deep
    assert "<p>Lists by a lens by decoder: what it writes.</p>" in deep and "point nowhere" not in deep
    gemma = _weights_help(library, "gemma-2b-res-jb/blocks.6.hook_resid_post", SUITING)
    assert gemma.startswith("<p>Trees and lists by encoder: what the feature looks for.</p>")
    assert _weights_help(library, "no/such", SUITING) == ""


class OfDistances:
    """A service that knows the vectors of some kinds of weights, by their distances."""

    def __init__(self, **known):
        self.library, self._known = Library(), known

    def vector(self, recipe):
        found = self._known.get(recipe.weights)
        return found and SimpleNamespace(distance_from_centroid=found, mean_token_distance=2.0)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"vocabulary": 2.0, "pullback": 0.9}, "centroid 2 in trees, 0.9 in lists; tokens: 2 on average"),
        ({"vocabulary": 3.5, "pullback": 3.5}, "centroid 3.5; tokens: 2 on average"),  # by a scale of one's own
        ({"pullback": 0.9}, "centroid 0.9 in lists; tokens"),  # a vocabulary scan is missing
        ({"vocabulary": 2.0}, "centroid 2 in trees; tokens"),  # an encoder would have to be carried back
        ({}, ""),
    ],
)
def test_where_other_weights_suit_lists_both_distances_are_told(known, said):
    recipe = VectorRecipe(sae="demo/blocks.6.hook_resid_post", feature=0)
    told = _distance(OfDistances(**known), recipe)
    assert said in told and bool(told) == bool(said)
    assert "centroid 0.9; tokens" in _distance(OfDistances(pullback=0.9), replace(recipe, weights="pullback"))


def test_a_scale_of_ones_own_begins_with_the_usual_one_of_the_weights():
    space = SimpleNamespace(mean_distance=2.0)
    library = SimpleNamespace(has=lambda entry: True, subject=lambda model: SimpleNamespace(space=space))
    service, entry = SimpleNamespace(library=library), find_sae("demo/blocks.6.hook_resid_post")
    scales = [_usual_scale(service, entry, kind, 1.0) for kind in ("pullback", "encoder", SUITING, None)]
    assert scales == [0.9, 2.0, 2.0, 2.0]
    assert _usual_scale(service, None, "encoder", 1.5) == 1.5


def test_the_controls_show_the_weights_that_suit_the_sae_unless_a_recipe_names_others():
    def weights(sae, kind=None):
        return vector_values(Library(), VectorRecipe(sae=sae, feature=0, weights=kind))["weights"]

    assert weights("demo/hook_embed") == SUITING
    assert weights("demo/blocks.6.hook_resid_post") == SUITING
    assert weights("demo/blocks.6.hook_resid_post", "mapped") == "mapped"


def test_weights_follow_another_sae_only():
    library, deep = Library(), "demo/blocks.6.hook_resid_post"
    assert _suitable(library, deep, "demo/hook_embed") == SUITING
    assert _suitable(library, deep, deep) == gr.skip()
    assert _suitable(library, None, deep) == _suitable(library, "no such", deep) == gr.skip()


@pytest.mark.parametrize(
    ("control", "within", "beyond", "valid"),
    [
        (gr.Slider(1, 20, label="Paths"), 20, 21, "from 1 to 20"),
        (gr.Number(1, minimum=1, label="Most"), 10**6, 0, "from 1"),
        (gr.Textbox(max_length=3, label="Prompt"), "abc", "abcd", "at most 3 characters"),
        (gr.Radio(["a", "b"], label="Kind"), "b", "c", "a, b"),
        (gr.Dropdown(["a"], allow_custom_value=True, label="Cutoff"), "c", None, None),
    ],
)
def test_a_control_shows_what_is_within_its_limits(control, within, beyond, valid):
    for shows in (within, gr.skip(), True):
        check_shows(control, shows)
    if beyond is not None:
        with pytest.raises(UserError, match=f"“{control.label}” is .*; this page can show {valid}. Use"):
            check_shows(control, beyond)


def of_controls(usual: bool = False, **components) -> VectorRecipe:
    return vector_recipe(
        sae="demo/hook_embed", feature=0, weights="encoder", encoder_share=0.5, tokens="", centroid=True,
        usual_scale=usual, scale=2.0, **dict.fromkeys(COMPONENTS, 0.0) | components,
    )


@pytest.mark.parametrize("pca", [(), (0.2,), (0.0, -0.3), (0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8)], ids=str)
def test_eight_sliders_hold_the_weights_of_the_components(pca):
    shown = vector_values(Library(), VectorRecipe(sae="demo/hook_embed", feature=0, pca=pca))
    values = {f"component_{k}": shown[f"component_{k}"] for k in range(1, 9)}
    assert list(values.values()) == [*pca, *[0.0] * (8 - len(pca))]
    assert of_controls(**values).pca == pca


@pytest.mark.parametrize("pca", [[0.1] * 9, [1.5]], ids=["nine", "large"])
def test_weights_that_the_sliders_do_not_hold_are_left_to_command_line_and_api(pca):
    with pytest.raises(UserError, match="sliders for 8 component weights from -1 to 1.* command line or the API"):
        vector_values(Library(), VectorRecipe(sae="demo/hook_embed", feature=0, pca=pca))


def test_a_component_is_told_by_its_share_and_its_tokens_as_text():
    html = _line(PrincipalComponent(1, 0.123, (" the", "<b>"), ("\n",)))
    assert "12% of the variance" in html
    assert "<q>␣the</q> <q>&lt;b&gt;</q>" in html and "<q>\\n</q>" in html


@pytest.mark.parametrize(("usual", "scale"), [(True, None), (False, 2.0)])
def test_the_usual_scale_is_left_to_the_model(usual, scale):
    assert of_controls(usual).scale == scale


def test_the_demo_is_found_by_name():
    assert find_sae("demo/hook_embed").kind == "embed"


def test_recipes_fill_the_controls_and_are_read_from_them_by_name():
    vector = VectorRecipe(sae="demo/hook_embed", feature=3, weights="mix", encoder_share=0.25, scale=2.0, pca=(0, 0.5))
    tree = TreeRecipe(prompt="chat-synonym", top_k=7, cutoff=2e-3, clamp=1.5, steer_at="prompt", inject_layer=0)
    values = values_shown(Library(), vector, tree)
    assert (values["cutoff"], values["clamp"], values["usual_scale"]) == ("2e-3", "1.5", False)
    assert values["intervene"] and recipes_shown(**values) == (vector, tree)
    off = TreeRecipe(prompt="chat-synonym", top_k=7, cutoff=2e-3)
    assert recipes_shown(**values | {"intervene": False, "clamp": "much"}) == (vector, off)
    assert not values_shown(Library(), vector, off)["intervene"]
    assert recipes_shown(**values | tree_values(TreeRecipe())) == (vector, TreeRecipe())
    answer = filled(Library(), values)
    assert answer.keys() == values.keys() | {"suited"} and answer["suited"] == find_sae(vector.sae).model
    assert ("7", 7) in answer["top_k"].choices and answer["top_k"].value == 7


def test_every_field_of_a_tree_has_its_control():
    class Service:
        settings = ServerSettings()

    with gr.Blocks():
        controls = growth_controls(Service(), Opening(DEMO, find_sae(DEMO.sae)))
    assert controls.keys() == tree_values(TreeRecipe()).keys()


def test_every_field_of_a_trees_recipes_has_a_control():
    class Service:
        library = Library(device="cpu")
        settings = ServerSettings()
        light_callers = Callers()

        def vector(self, recipe):
            return None

    opening = Opening(DEMO, Service.library.find(DEMO.sae))
    with gr.Blocks():
        choice = feature_choice(Service(), opening)
        controls = {
            **vector_controls(Service(), opening, choice).fields, **growth_controls(Service(), opening)
        }
    fields = {field.name for kind in (VectorRecipe, TreeRecipe) for field in recipe_fields(kind)}
    # Whether a scale is given, whether the model is changed, and the sliders of ``pca``.
    others = {"usual_scale", "intervene", *COMPONENTS}
    assert fields - {"pca", "vector_name"} == controls.keys() - others  # the name comes with the vector
