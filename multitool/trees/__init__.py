"""Definition trees as data. Pure numpy: a tree read from a file is handled by the same code as a fresh one.

Uses ``recipes``.

- ``tree``: the nodes in columns, definitions, shares of probability, trimming
- ``growth``: growing, level by level, from anything that continues tokens
- ``document``: a tree with its recipe, and its JSON both ways
- ``phrases``: runs of tokens, as pictures and outlines show them; ``comparison``: what two results share
"""
