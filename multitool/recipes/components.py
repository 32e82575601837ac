"""How much is told of a model's principal components where nothing else is asked for."""

SHOWN = 8  # components
TOKENS = 8  # at each end
