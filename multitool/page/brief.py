"""Brief answers for agents, who read every word: what matters of a result's JSON, in a bounded number of bytes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from multitool.page.kept import Kept
from multitool.recipes.captions import readable
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import Definition, Tree

LARGEST = 36_000  # bytes of an answer
_TEXTS_SHOWN = (300, 100, 30)  # characters of a text; fewer where there are so many that they would not fit
_ITEMS_SHOWN, _NAMES_SHOWN = 50, 60  # of a list or an object inside an answer
_DIGITS = 5
_BEGINNINGS = 5, 20  # where there are many complete definitions, and where there are none
_STRONGEST = 10
_FIRING = 3  # features at a token
_RECIPE = (
    "model", *(field.name for kind in (VectorRecipe, TreeRecipe) for field in fields(kind)), "own_vector", "dtype",
    "version",
)
_FIGURES = ("norm", "distance_from_centroid", "mean_token_distance", "typical_maximum")


@dataclass(frozen=True)
class View:
    """Which part of a long answer is asked for."""

    offset: int
    limit: int


def written(answer) -> str:
    """An answer as JSON text. Half a surrogate pair, which cannot be sent, becomes an escape."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()


def paged(
    head: dict, name: str, items: Sequence, view: View, room: int = LARGEST, tell: Callable[[Any], Any] = lambda it: it
) -> dict:
    """An answer with as many of its items as are asked for and find room, and where to go on.

    Args:
        head: what else is told.
        name: of the items.
        room: bytes of the whole answer.
        tell: makes JSON of an item.
    """
    told = next(
        (short for short in (shortened(head, longest) for longest in _TEXTS_SHOWN) if _size(short) < room / 2),
        shortened(head, 10),
    )
    left = room - _size(told) - 100  # for what says where these items stand
    chosen: list = []
    for item in items[view.offset:view.offset + view.limit]:
        short = shortened(tell(item), digits=_DIGITS)
        left -= _size(short) + 2
        if chosen and left < 0:
            break
        chosen.append(short)
    told |= {"total": len(items), "offset": view.offset, name: chosen}
    after = view.offset + len(chosen)
    return told | ({"next_offset": after} if after < len(items) else {})


def shortened(value, longest: int = _TEXTS_SHOWN[0], digits: int | None = None):
    """JSON with its texts, lists and objects cut; its numbers with so many digits."""
    match value:
        case str():
            return value if len(value) <= longest else value[:longest] + "…"
        case float() if digits:
            return float(f"{value:.{digits}g}")
        case list():
            return [shortened(item, longest, digits) for item in value[:_ITEMS_SHOWN]]
        case dict():
            return {
                shortened(name, longest): shortened(of, longest, digits)
                for name, of in islice(value.items(), _NAMES_SHOWN)
            }
    return value


def brief_tree(kept: Kept, data: dict, view: View, room: int = LARGEST) -> dict:
    """A tree's most probable definitions, its recipe, and what was found of it; with an id, by which it is kept."""
    document = read_tree(data)
    tree_id = kept.keep_tree(document)
    found = document.definitions()  # complete ones first
    n_complete = sum(one.complete for one in found)
    tell = partial(_told, document.tree, document.tree.lift)
    head = {
        "id": tree_id,
        "next": _next(document, tree_id),
        "recipe": _those(readable(document.settings), _RECIPE),
        "vector": _those(document.vector, _FIGURES),
        "result": document.result,
        "evidence": {name: of for name, of in (document.evidence or {}).items() if not isinstance(of, list)} or None,
        "caution": document.caution or None,
        "beginnings": list(map(tell, found[n_complete:][:max(_BEGINNINGS[0], _BEGINNINGS[1] - n_complete)])),
    }
    told = {name: of for name, of in head.items() if of is not None}
    return paged(told, "definitions", found[:n_complete], view, room, tell)


def _those(section: dict, names: Sequence[str]) -> dict:
    """A tree may be anybody's: of its sections only what this tool knows is told."""
    return {name: section[name] for name in names if name in section}


def _next(document: DefinitionTree, tree_id: str) -> str:
    if not document.complete:
        return f'The tree is incomplete: continue_tree(tree="{tree_id}") grows the rest.'
    if document.evidence is None:
        return f'check_tree(tree="{tree_id}") tells whether what fires the feature agrees with the tree.'
    if document.least_lift is None:
        return f'trim_tree(tree="{tree_id}", lift=1) leaves what the feature makes more probable.'
    return "definition_tree with another prompt, and check_list, tell more of the feature."


def _told(tree: Tree, lift: np.ndarray | None, found: Definition) -> dict:
    """A definition; of a checked tree with its lift in nats, and the activation on it where it was read."""
    told: dict = {"text": found.text, "probability": found.probability}
    if lift is not None:
        told["lift"] = float(lift[found.node])
    if tree.activation is not None and not np.isnan(tree.activation[found.node]):
        told["activation"] = float(tree.activation[found.node])
    return told


def brief_trees(kept: Kept, data: list[dict], view: View) -> dict:
    """Several trees in the room of one."""
    room = LARGEST // max(len(data), 1) - 20
    return {"trees": [brief_tree(kept, tree, view, room) for tree in data]}


def brief_table(data: dict, view: View) -> dict:
    """A token list as a table."""
    return paged({"headers": data["headers"]}, "data", data["data"], view)


def brief_list(data: dict, view: View) -> dict:
    """A token list with its evidence."""
    head = {name: of for name, of in data.items() if name != "tokens"} | {"settings": readable(data["settings"])}
    return paged(head, "tokens", data["tokens"], view)


def brief_suggestion(data: dict, view: View) -> dict:
    """The best settings, and the first trials."""
    told = {"next": "Give definition_tree what recipe and growth hold, by these names."}
    return paged(told | {name: data[name] for name in ("sentence", "recipe", "growth")}, "trials", data["trials"], view)


def brief_activity(data: list[dict], view: View) -> dict:
    """Where a feature fires in a text: the strongest places, then token by token."""
    places = [place for place, token in enumerate(data) if token["activation"] > 0]
    places.sort(key=lambda place: -data[place]["activation"])
    strongest = [shortened({"position": place} | data[place], digits=_DIGITS) for place in places[:_STRONGEST]]
    return paged({"fires_on": len(places), "strongest": strongest}, "tokens", data, view)


def brief_continuations(data: dict, view: View) -> dict:
    """Continuations without their single tokens; with the strongest activation on each."""
    said = ("strength", "text", "ended", "caution", "log_probability", "repetition")
    told = [
        _those(one, said) | {"strongest_activation": max(one["activations"] or [0.0])} for one in data["continuations"]
    ]
    return paged({name: data[name] for name in ("settings", "complete")}, "continuations", told, view)


def brief_found(data: dict, view: View) -> dict:
    """Features that were found; of a text also which fire on each token, by their numbers."""
    told = {name: data[name] for name in ("sentence", "settings")}
    told["next"] = "definition_tree with one of these, sae and feature, tells what the model says it means."
    if "tokens" in data:
        told["tokens"] = [
            {"token": token["token"], "features": [fires["feature"] for fires in token["features"][:_FIRING]]}
            for token in data["tokens"]
        ]
    return paged(told, "features", data["features"], view)


def brief_card(data: dict, view: View) -> dict:
    """What is known of a feature; its contexts as long as there is room."""
    told = {name: of for name, of in data.items() if name not in ("schema", "contexts", "page")}
    told["next"] = "definition_tree tells what the model says it means, activity where it fires in a text."
    return paged(shortened(told, digits=_DIGITS), "contexts", data.get("contexts", []), view)


def brief_items(name: str, data: list, view: View) -> dict:
    """A list of objects."""
    return paged({}, name, data, view)


def _size(value) -> int:
    return len(written(value).encode())
