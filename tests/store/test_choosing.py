"""The order in which SAEs are offered, and menus that narrow each other."""

from pathlib import Path

from multitool.store.choosing import in_order, menus, narrowed, nearest_first
from multitool.store.entries import SaeEntry
from multitool.store.registry import find_sae, saes


def sae(sae_id: str, layer: int, width: int | None = 16, l0: float | None = 50.0, **more) -> SaeEntry:
    given = {"release": "r", "model": "m", "kind": "resid_post"} | more
    return SaeEntry(sae_id=sae_id, layer=layer, d_sae=width, l0=l0, **given)


def shown(offered, chosen):
    return {name: [label for label, _ in menu.choices] for name, menu in menus(offered, chosen).items()}


def names(entries) -> list[str]:
    return [entry.sae_id for entry in entries]


def test_numbers_are_in_the_order_of_numbers():
    unordered = [sae("c", 10), sae("b", 9, 1024), sae("a", 9, 512), sae("e", 9, 512, 100.0), sae("d", 9, 512, None)]
    assert names(in_order(unordered)) == ["a", "e", "d", "b", "c"]
    alike = [sae(f"trainer_{number}", 9) for number in (10, 9, 1)]
    assert names(in_order(alike)) == ["trainer_1", "trainer_9", "trainer_10"]


def test_what_is_here_comes_first_then_canonical_ones_then_those_with_pages():
    here = sae("here", 9, folder=Path())
    canonical, paged, other = sae("9/canonical", 9), sae("paged", 0, neuronpedia_id="m/0"), sae("other", 0)
    assert in_order([other, paged, canonical, here]) == [here, canonical, paged, other]


def test_menus_offer_what_there_is_of_what_was_chosen_before():
    offered = in_order([
        sae("1 a", 1, 512, 20.0), sae("1 b", 1, 512, 100.0), sae("1 c", 1, 1024, 30.0), sae("10", 10, None, None),
        sae("2", 2, release="s"),
    ])
    assert shown(offered, offered[0]) == {
        "release": ["r", "s"], "place": ["1", "10"], "width": ["512", "1,024"], "l0": ["20", "100"],
    }
    assert shown(offered, offered[3]) == {
        "release": ["r", "s"], "place": ["1", "10"], "width": ["not known"], "l0": ["not known"],
    }
    assert menus(offered, offered[1])["l0"].value == "100"


def test_two_places_at_a_layer_are_told_apart_in_the_models_order():
    offered = [sae("post", 11), sae("before", 11, kind="resid_pre"), sae("0", 0)]
    assert shown(offered, offered[0])["place"] == ["0", "11 (resid_pre)", "11 (resid_post)"]


def test_a_menu_leads_to_what_is_most_like_the_one_before():
    of_layers = {layer: [sae(f"{layer}/{l0}", layer, 512, l0) for l0 in (18.0, 80.0)] for layer in (1, 2)}
    wide = sae("2/wide", 2, 1024, 70.0)
    offered = [*of_layers[1], *of_layers[2], wide]
    assert narrowed(offered, of_layers[1][1], "place", "blocks.2.hook_resid_post") == of_layers[2][1]
    assert narrowed(offered, of_layers[2][0], "width", "1024") == wide
    assert narrowed(offered, wide, "l0", "70") == wide
    assert narrowed(offered, wide, "place", "blocks.1.hook_resid_post") == of_layers[1][1]


def test_the_way_of_training_stays_where_nothing_else_tells():
    trained = [sae(f"blocks.{layer}__trainer_{number}", layer) for layer in (3, 12) for number in (3, 4)]
    assert narrowed(trained, trained[1], "place", "blocks.12.hook_resid_post").sae_id == "blocks.12__trainer_4"


def test_of_a_release_those_come_first_that_no_menu_tells_apart():
    offered = [sae("a", 1), sae("b", 2), sae("c", 2), sae("elsewhere", 2, release="s")]
    assert names(nearest_first(offered, offered[2])) == ["b", "c", "a"]


def test_every_sae_of_the_registry_is_reached_by_its_menus():
    every = in_order(saes())
    of_gemma = [entry for entry in every if entry.model == "google/gemma-2-2b"]
    chosen = find_sae("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")
    assert of_gemma[0].canonical and menus(of_gemma, chosen)["release"].choices[0][0] == chosen.release
    assert chosen.l0 == 82  # which the registry does not tell of canonical ones, but their folder does
    sparse = narrowed(of_gemma, chosen, "release", "gemma-scope-2b-pt-res")
    assert sparse.name == "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
    assert shown(of_gemma, sparse)["l0"] == ["22", "41", "82", "176", "445"]
