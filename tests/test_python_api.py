"""The Python API: few names, each documented with an example that runs."""

import doctest
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import multitool as mt
from multitool.text import html_table

pytestmark = pytest.mark.slow  # runs the examples of the documentation

ROOT = Path(__file__).parents[1]
RAIN = mt.VectorRecipe(sae="demo/hook_embed", feature=927)
PLAIN_VALUES = {"PROMPTS", "__version__"}  # told of in the package's own documentation
SLOW = {"suggest"}  # the README's commands run it


@pytest.mark.parametrize("name", sorted(set(mt.__all__) - PLAIN_VALUES))
def test_every_name_is_documented_with_an_example_that_runs(name, demo_library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some examples write a file
    given = {"mt": mt, "library": demo_library, "vector": RAIN}
    documented = getattr(mt, name).__doc__
    example = doctest.DocTestParser().get_doctest(documented, given, name, None, None)
    assert f"mt.{name}" in example.docstring or name in ("DefinitionTree", "TokenTable")  # which others give
    assert example.examples
    if name not in SLOW:
        assert _run(example) == []


def test_the_package_s_own_example_runs_and_tells_the_rest():
    example = doctest.DocTestParser().get_doctest(mt.__doc__, {}, "multitool", None, None)
    assert _run(example) == []
    assert all(f"mt.{name}" in mt.__doc__ for name in PLAIN_VALUES)


def _run(example: doctest.DocTest) -> list[str]:
    """What went wrong; figures may differ where the examples have dots."""
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    return said


def test_the_names_are_there_and_drawing_waits_until_it_is_used():
    """In a process of its own: here everything is imported already."""
    code = (
        "import sys, multitool\n"
        "assert set(multitool.__all__) <= set(dir(multitool))\n"
        "slow = {'matplotlib', 'gradio', 'transformers', 'sae_lens', 'sklearn', 'pandas'}\n"
        "assert not slow & sys.modules.keys(), slow & sys.modules.keys()\n"
        "from multitool import *\n"
        "assert Picture.__module__ == 'multitool.pictures.figure' and 'matplotlib' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'picture'"):
        _ = mt.picture


def test_recipes_have_defaults(demo_library):
    assert mt.token_table(demo_library, RAIN).rows == mt.token_table(demo_library, RAIN, mt.ListRecipe()).rows
    first = next(iter(mt.definition_trees(demo_library, RAIN)))
    assert first.settings["cutoff"] == mt.TreeRecipe().cutoff


def test_a_list_does_the_scan_that_it_needs(demo_library):
    table = mt.token_table(demo_library, RAIN, mt.ListRecipe(measure="activation", top=3))
    assert table.columns[-1] == "activation" and table.rows[0][-1] > 0


# ── What a notebook shows ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tree(demo_library):
    return mt.definition_tree(demo_library, RAIN, mt.TreeRecipe(cutoff=5e-3))


def test_a_table_is_html_in_which_nothing_does_anything():
    shown = html_table("a <b>", ("token", "n"), [[" <script>", 2.71828], ["\n", 7]])
    assert '<caption style="text-align: left">a &lt;b&gt;</caption>' in shown
    assert "<th>token</th><th>n</th>" in shown
    assert "␣&lt;script&gt;</td><td>2.718</td>" in shown
    assert "\\n</td><td>7</td>" in shown


def test_a_tree_shows_its_definitions(tree):
    shown = tree._repr_html_()
    assert "demo/hook_embed feature 927, weights encoder: 14 nodes at cutoff 0.005" in shown
    assert "0.65%</td>" in shown and ">water</td>" in shown and ">water that …</td>" in shown
    assert len(repr(tree)) < 2000, "and not all its nodes where there is only text"


def test_a_list_shows_its_rows(demo_library):
    shown = mt.token_table(demo_library, RAIN, mt.ListRecipe(top=2))._repr_html_()
    assert "demo/hook_embed feature 927, weights pullback, by score" in shown
    assert "␣Rain</td>" in shown and shown.count("<tr>") == 3


def test_evidence_is_said_above(demo_library, tree):
    table = mt.token_table(demo_library, RAIN, mt.ListRecipe(top=2), evidence=True)
    assert f"by score. {table.evidence.sentence}</caption>" in table._repr_html_()
    checked = replace(tree, evidence={"sentence": "It agrees."})
    assert "at cutoff 0.005. It agrees.</caption>" in checked._repr_html_()


def test_a_picture_shows_itself_as_large_whatever_its_resolution(tree):
    fine, coarse = (mt.Picture(tree, dpi=dpi)._repr_png_() for dpi in (192, 96))
    assert fine[0].startswith(b"\x89PNG") and len(fine[0]) > len(coarse[0])
    assert fine[1] == pytest.approx(coarse[1], abs=1)
    assert 600 < coarse[1]["width"] < 1010  # 6.5 inches are 624


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("b.PDF", b"%PDF"), ("c.svg", b"<?xml")])
def test_a_picture_is_saved_in_the_format_of_its_ending(tree, tmp_path, name, begins):
    mt.Picture(tree).save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_picture_that_cannot_be_is_refused_before_it_is_drawn(tree, tmp_path):
    with pytest.raises(mt.UserError, match=r"its ending tells the format, one of \.png, \.svg, \.pdf"):
        mt.Picture(tree).save(tmp_path / "a.jpg")
    with pytest.raises(mt.UserError, match="dpi is 7"):
        mt.Picture(tree, dpi=7)
    with pytest.raises(mt.UserError, match="max_nodes is 0"):
        mt.Picture(tree, max_nodes=0)
