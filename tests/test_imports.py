"""Imports go one way, and each heavy library has its one place.

Read off the source, so that a new module falls under the rules by being there.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def name_of(path: Path) -> str:
    """``app``, ``multitool.tree``, ``multitool`` for its ``__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in [ROOT / "app.py", *(ROOT / "multitool").rglob("*.py")] if path.exists()}

# Where a library may be imported, by the beginning of a module's name behind "multitool.".
PLACES = {
    "matplotlib": ("draw",),
    "gradio": ("ui", "view", "app"),
    "gradio_client": ("ui", "view", "app"),
    "spaces": ("ui", "view", "app"),
    "sae_lens": ("registry", "loading"),
    "transformers": ("registry", "loading", "demo_model", "caches", "roomy_layer"),
    "tokenizers": ("registry", "loading", "demo_model"),
    "huggingface_hub": ("registry", "loading", "demo_model"),
    "transformer_lens": (),
    "datasets": (),
    "pandas": ("ui", "view", "app"),
}
# What a module must not need, neither itself nor through another of ours.
MODEL_LIBRARIES = {"transformers", "sae_lens", "huggingface_hub", "gradio", "spaces"}
WITHOUT_MODEL = ("vector", "tokens", "tree", "growth", "document", "phrases", "text", "recipe", "draw", "errors",
                 "embedding", "measures", "evidence", "firing", "compare", "links", "explore", "wording", "prompts",
                 "terms", "tables")
WITHOUT_TORCH = ("tree", "growth", "document", "phrases", "text", "draw", "errors", "registry", "measures",
                 "evidence", "compare", "links", "explore", "wording", "prompts",
                 "terms", "tables")  # themselves


@cache
def imported(module: str, *, later: bool = True) -> frozenset[str]:
    """What a module imports: ours by full name, others by the name of their library.

    Args:
        later: also what it imports inside functions, when they are called.
    """
    names, waiting = set(), [ast.parse(FILES[module].read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively, which these rules do not follow"
            # ``from multitool import tree`` may name a module or something in ``__init__``.
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            names |= inside or {node.module}
        elif later or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return frozenset(name if name in FILES else name.partition(".")[0] for name in names)


@cache
def needed(module: str) -> frozenset[str]:
    """What importing a module imports, through others of ours too; and what it imports itself later."""
    found, waiting = set(), [module]
    while waiting:
        for name in imported(waiting.pop(), later=False) - found:
            found.add(name)
            if name in FILES:
                waiting.append(name)
    return frozenset(found) | imported(module)


def test_the_rules_look_at_the_modules_that_there_are():
    assert {f"multitool.{name}" for name in (*WITHOUT_MODEL, *WITHOUT_TORCH)} <= FILES.keys()
    assert "torch" in imported("multitool.vector")
    assert "multitool.tree" in imported("multitool.growth")
    assert "sae_lens" in imported("multitool.loading"), "an import inside a function is seen"
    assert "sae_lens" not in imported("multitool.loading", later=False)
    assert {"torch", "multitool.subject", "multitool.errors"} <= needed("multitool.engine")


@pytest.mark.parametrize("module", FILES)
def test_each_heavy_library_is_imported_in_its_place_only(module):
    place = module.removeprefix("multitool.")
    misplaced = {library for library, places in PLACES.items() if not place.startswith(places)} & imported(module)
    assert not misplaced


@pytest.mark.parametrize("module", WITHOUT_MODEL)
def test_what_is_arithmetic_or_data_needs_no_model_library_and_no_page(module):
    assert not needed(f"multitool.{module}") & MODEL_LIBRARIES


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_handles_a_finished_tree_knows_no_torch(module):
    assert "torch" not in imported(f"multitool.{module}")


def test_imports_do_not_run_in_circles():
    order = list(TopologicalSorter({name: imported(name) & FILES.keys() for name in FILES}).static_order())
    assert set(order) == FILES.keys()


def test_errors_need_nothing_of_ours():
    assert not needed("multitool.errors") & FILES.keys()


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("multitool")])
def test_the_engine_knows_neither_page_nor_command_line(module):
    if module.removeprefix("multitool.").startswith(("ui", "view")):
        # The page may consist of several modules; they still do not know the file that starts it.
        assert not imported(module) & {"app", "multitool.__main__"}
    else:
        above = {name for name in FILES if name.removeprefix("multitool.").startswith(("ui", "view", "app"))}
        assert not imported(module) & (above | {"multitool.__main__"})
