"""The floors of the house (docs/architecture.md): imports go down, and each heavy library has one door.

Checked twice: in the source, where an import inside a function is seen too; and by what a fresh interpreter has loaded
after a floor's modules have been imported, whoever imported it.
"""

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multitool"

EVERYWHERE = {"errors", "text", "_version"}
# What each floor may import of the house, besides itself and what everything uses.
MAY_USE = {
    "recipes": set(),
    "vectors": {"recipes"},
    "trees": {"recipes"},
    "evidence": set(),
    "pictures": {"trees", "recipes"},
    "model": {"trees", "vectors", "recipes"},
    "store": {"model", "trees", "vectors", "recipes"},
    "jobs": {"store", "model", "evidence", "trees", "vectors", "recipes"},
    "process": set(),
    "page": {"process", "jobs", "store", "model", "evidence", "pictures", "trees", "vectors", "recipes"},
    "cli": {"process", "jobs", "store", "model", "evidence", "pictures", "trees", "vectors", "recipes"},
}
# The floors whose own modules may import a library.
DOORS = {
    "torch": {"vectors", "model", "store", "jobs"},
    "transformers": {"model", "store"},
    "tokenizers": {"model", "store"},
    "huggingface_hub": {"store"},
    "safetensors": {"store"},
    "filelock": {"store"},
    "sae_lens": {"store"},
    "transformer_lens": set(),
    "gradio": {"page"},
    "gradio_client": {"page"},
    "spaces": {"page"},
    "pandas": {"page", "text", "jobs", "trees"},  # the last two for its type alone
    "ray": {"jobs"},
    "pyarrow": {"store"},
    "matplotlib": {"pictures"},
    "sklearn": {"evidence"},
    "scipy": {"evidence"},
}
HEAVY = ("torch", "transformers", "sae_lens", "huggingface_hub", "gradio", "spaces", "matplotlib", "sklearn", "scipy")


def floor_of(module: str) -> str:
    """``trees`` for ``multitool.trees.growth``, ``cli`` for ``multitool.cli``."""
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ON_FLOORS = [module for module in MODULES if floor_of(module) in MAY_USE]


@cache
def imported(module: str) -> frozenset[str]:
    """What a module's source imports, inside functions too: ours by full name, others by the name of their library."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively, which these rules do not follow"
            # ``from multitool.trees import tree`` names a module.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {node.module}
    return frozenset(name if name in MODULES else name.partition(".")[0] for name in found)


def test_every_module_is_on_a_floor_and_every_floor_has_modules():
    others = {"multitool", "multitool.__main__", *(f"multitool.{name}" for name in EVERYWHERE)}
    assert set(MODULES) - set(ON_FLOORS) == others
    assert {floor_of(module) for module in ON_FLOORS} == MAY_USE.keys()
    assert "multitool.trees.tree" in imported("multitool.trees.growth")
    assert "sae_lens" in imported("multitool.store.saes"), "an import inside a function is seen"


@pytest.mark.parametrize("module", ON_FLOORS)
def test_arrows_go_down(module):
    floor = floor_of(module)
    used = {floor_of(name) for name in imported(module) & MODULES.keys()} - {floor, ""}
    assert used <= MAY_USE[floor] | EVERYWHERE


@pytest.mark.parametrize("module", ON_FLOORS)
def test_each_heavy_library_has_its_doors(module):
    assert not {library for library, floors in DOORS.items() if floor_of(module) not in floors} & imported(module)


def test_what_everything_uses_uses_nothing_of_the_house():
    for name in EVERYWHERE:
        assert not imported(f"multitool.{name}") & MODULES.keys()


def test_imports_do_not_run_in_circles():
    order = TopologicalSorter({module: imported(module) & MODULES.keys() for module in MODULES}).static_order()
    assert set(order) == MODULES.keys()


def loaded_after(statement: str) -> set[str]:
    """What a fresh interpreter has loaded: floors of the house, and heavy libraries."""
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    floors = {floor_of(name) for name in loaded if name.startswith("multitool.")}
    return (floors | {name for name in loaded if name in HEAVY}) - EVERYWHERE


@pytest.mark.parametrize("floor", [floor for floor in MAY_USE if floor not in ("page", "cli")])
def test_a_floor_loads_only_what_lies_below(floor):
    everything = ", ".join(module for module in ON_FLOORS if floor_of(module) == floor)
    floors = {floor} | MAY_USE[floor]
    doors = {library for library, own in DOORS.items() if own & floors}
    # What these libraries import themselves is not ours to decide: sae_lens imports transformers, which imports torch.
    allowed = floors | doors | ({"huggingface_hub", "sklearn", "scipy"} if "transformers" in doors else set())
    assert loaded_after(f"import {everything}") <= allowed


def test_recipes_load_no_torch_and_the_package_nothing_heavy():
    assert loaded_after("import multitool.recipes, multitool.recipes.recipe, multitool.recipes.links") == {"recipes"}
    assert loaded_after("import multitool") == set()
    assert loaded_after("import multitool as mt; mt.VectorRecipe; mt.TreeRecipe; mt.PROMPTS") == {"recipes"}
    # The command line loads what a command needs, and nothing of it to refuse, to list or to explain.
    assert not loaded_after("import multitool.cli") & set(HEAVY)
