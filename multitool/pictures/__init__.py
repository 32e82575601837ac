"""A definition tree as a picture: a figure (matplotlib), and a view to explore in a browser.

Uses ``trees`` and ``recipes`` only.

- ``figure``: PNG, SVG and PDF; ``drawing``: what is on them; ``placing`` and ``ruler``: where it stands; ``fonts``:
  which font has which character
- ``explorer``: the view's data and the view as a file of its own; its HTML, CSS and JavaScript lie beside it
"""
