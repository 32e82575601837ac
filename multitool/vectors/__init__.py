"""Tensor arithmetic between a feature's weights and the token embeddings. Knows no model and no file.

Uses torch and ``recipes``.

- ``embedding``: the space of the token embeddings: centroid, spread, principal components
- ``vector``: from weights to a direction, from a direction to the ghost's embedding row
- ``scan_directions``: directions made from what a vocabulary scan found
- ``nearness``: many features' directions against one
- ``ranking``: the real tokens ordered by a measure
"""
