"""What is asked for: vector, tree and list recipes, checked before any work; and what is said of them.

Uses ``errors``, ``text`` and pydantic. Loads no torch: a recipe can be made, written as a link and told in a caption
anywhere.

- ``recipe``: VectorRecipe, TreeRecipe, ListRecipe; ``fields``: how their fields are declared, checked and read
- ``finding``: what features are looked for by; ``continuation``: what a text is continued by under steering
- ``directions``: the kinds of direction, where a kind is added
- ``prompts``: the menu of prompts; ``plain_texts``: prose on which a model is measured
- ``own_vectors``: a vector of one's own in the place of a feature
- ``weighted_sums``: features and tokens with weights, as people write them
- ``links``: a recipe as a link's query; ``captions``: a recipe in words
- ``tables``: tables as texts to paste; ``citation``: what to cite
"""
