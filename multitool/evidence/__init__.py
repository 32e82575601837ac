"""Does what fires a feature agree with a tree or a list? Pure numbers, no torch, no model.

- ``statistics``: AUROC, average precision, ranks, intervals
- ``verdicts``: the evidence for a list and for a tree, with a verdict and a sentence
- ``breaking``: where a steered text breaks
- ``figures``: the figures behind a verdict, as labelled lines
"""
