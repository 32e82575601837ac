"""A view of the page as a link tells it: what a tab says of itself, so that addresses lead to it and follow it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multitool.errors import UserError
from multitool.recipes import links

# Each is the id of its tab too.
TREE, FIND, LIST, STEER, TEXT = "tree", "find", "list", "steer", "text"
SEVERAL_PROMPTS, SUGGEST = "prompts", "suggest"


def _always(*_: Any, **__: Any) -> bool:
    return True


def _never(**_: Any) -> bool:
    return False


@dataclass(frozen=True)
class View:
    """What leads from a link to a result and back.

    Attributes:
        name: in links, as ``view``; and the id of its tab.
        told: the parameters of a link, by name, from what the controls show, by name. It may raise UserError: then
            there is no link.
        values: and back, what the controls show for a link's parameters, those of other views among them. It raises
            UserError for what cannot be; what the controls cannot show is refused besides.
        shows: the ``elem_id`` of what shows the result.
        make: the words on the button that makes the result.
        leads: whether parameters lead to a result, and not only to the tab.
        free: whether a result takes nothing of a visitor's time on a GPU, from what the controls show.
        filling: what fills in the controls, from ``values``: where these are not all that it takes.
    """

    name: str
    told: Callable[..., Mapping[str, str]]
    values: Callable[[Mapping[str, str]], dict]
    shows: str
    make: str = ""
    leads: Callable[[Mapping[str, str]], bool] = _always
    free: Callable[..., bool] = _never
    filling: Callable[[dict], Mapping] = dict

    def query(self, values: Mapping) -> str:
        """A link's query for what the controls show. Raises UserError if there is none."""
        return links.query(named(self.name) | dict(self.told(**values)))


def named(view: str) -> dict[str, str]:
    """The parameter that names a view, which the tree's links go without."""
    return {} if view == TREE else {"view": view}


def entry(view: str, query: str | None, **more: Any) -> str:
    """What ``address.js`` is told: where the page is.

    Args:
        query: None: what the address says already.
        more: ``empty``: there is no result yet, so that the next one takes its place; ``bare``: the page as it opens;
            ``tab``: this is told as its tab has been opened; ``number``: as the address was followed, the so many-th
            time.
    """
    return json.dumps({"view": view, "query": query, **more})


def short_query(view: str, values: Mapping | None) -> str:
    """A link's query for a view without a result, of the feature that the controls show."""
    feature = {name: str(values[name]) for name in ("sae", "feature") if name in values} if values else {}
    try:
        return links.query(named(view) | feature)
    except UserError:
        return links.query(named(view))


def query_or_none(view: View, values: Mapping | None) -> str | None:
    """A link's query for what the controls show; None if they show nothing that has one."""
    try:
        return None if values is None else view.query(values)
    except UserError:
        return None
