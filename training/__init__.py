"""How the demo's sparse autoencoders are made: text, activations, training, quality figures.

Nothing here is needed to use the tool; it is the recipe behind the files in ``multitool/store/demo``.
"""
