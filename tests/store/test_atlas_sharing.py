"""The card of an atlas: what it tells, whatever names and prompts there are."""

import json

import pytest
import yaml
from atlas_material import FACTS

from multitool.store.atlas_schema import COLUMNS
from multitool.store.atlas_sharing import MEANINGS, atlas_card


def parts(card: str) -> tuple[dict, str]:
    """What stands in its head, and its text."""
    nothing, head, text = card.split("---\n", 2)
    assert not nothing
    return yaml.safe_load(head), text


def test_every_column_is_explained():
    assert list(MEANINGS) == COLUMNS.names
    text = parts(atlas_card([FACTS], 5, "me/atlas"))[1]
    assert "- `definitions` (list): the most probable first" in text and "- `feature` (int32): its number" in text


@pytest.mark.parametrize("n_rows, size", [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**8, "n>10M")])
def test_its_size_in_the_hubs_words(n_rows, size):
    assert parts(atlas_card([FACTS], n_rows, "me/atlas"))[0]["size_categories"] == [size]


def test_a_licence_is_told_where_one_is_named():
    assert parts(atlas_card([FACTS], 5, "me/atlas", "mit"))[0]["license"] == "mit"
    assert "license" not in parts(atlas_card([FACTS], 5, "me/atlas"))[0]


@pytest.mark.parametrize("name", [
    "a/b\n---\nlicense: mit\n# Heading", "x: [y, {z", "`code` ``more``", "<script>alert(1)</script>", "\ud800\u202e",
    "!!python/object:os.system x", "![](http://a.b/c.png)",
])
def test_names_are_shown_and_do_nothing(name):
    facts = FACTS | {"sae": name, "model": name, "tree": {"prompt": "```\n</code>" + name}}
    head, text = parts(atlas_card([facts], 5, "me/atlas").encode().decode())
    told, = head["sae_multitool"]["sae"]
    assert "\n" not in told and head["sae_multitool"]["model"] == [told]
    assert set(head) == {"pretty_name", "configs", "tags", "size_categories", "sae_multitool"}
    before, settings = text.split("\n```json\n")
    assert json.loads(settings.split("\n```\n")[0]) == facts
    heading = next(line for line in before.splitlines() if line.startswith("# Atlas of "))
    fence = "`" * (len(heading) - len(heading.rstrip("`")))
    assert fence and fence not in told
    assert heading.removeprefix(f"# Atlas of {fence}").removesuffix(fence).strip() == told


def test_atlases_of_several_saes():
    head, text = parts(atlas_card([FACTS, FACTS | {"sae": "demo/other"}], 5, "me/atlas"))
    assert head["sae_multitool"]["sae"] == ["demo/hook_embed", "demo/other"]
    assert head["pretty_name"] == "Atlas of demo/hook_embed, demo/other"
    assert len(json.loads(text.split("```json\n")[1].split("```")[0])) == 2
