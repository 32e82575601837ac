"""Makes the card that the page opens with anew: ``python -m scripts.opening_card``."""

import json
from dataclasses import replace

from multitool.jobs.local import feature_card
from multitool.page.feature_card import DEMO_CARD
from multitool.page.opening import DEMO
from multitool.page.tree_tab import DEMO_TREE
from multitool.store.library import Library
from multitool.trees.document import read_tree

_DIGITS = 4  # behind the point


def main() -> None:
    """Write it, without tokens of a vocabulary scan, which may be kept here or not: its contexts are such tokens."""
    tree = read_tree(DEMO_TREE.read_text(encoding="utf-8"))
    card = feature_card(Library(device="cpu", dtype="float32"), DEMO.sae, DEMO.single_feature(), tree=tree)
    told = _rounded(replace(card, strongest=()).to_dict())
    DEMO_CARD.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _rounded(value):
    match value:
        case float():
            return round(value, _DIGITS)
        case list():
            return [_rounded(item) for item in value]
        case dict():
            return {name: _rounded(of) for name, of in value.items()}
    return value


if __name__ == "__main__":
    main()
