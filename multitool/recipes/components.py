"""How many principal components of a model are shown, and how many tokens at their ends, by default."""

COMPONENTS_SHOWN = 8
TOKENS_PER_END = 8
