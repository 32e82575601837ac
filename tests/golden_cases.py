"""What is asked for the golden files: on the demo, and on tiny random models."""

import multitool as mt

EMBED, FIRST, SIXTH = "demo/hook_embed", "demo/blocks.1.hook_resid_post", "demo/blocks.6.hook_resid_post"


def _vector(sae: str = EMBED, feature: int | str = 927, **settings) -> mt.VectorRecipe:
    return mt.VectorRecipe(sae=sae, feature=feature, **settings)


def _tree(**settings) -> mt.TreeRecipe:
    return mt.TreeRecipe(**({"cutoff": 2e-3, "max_nodes": 60} | settings))


# By name: the vector and the tree.
TREES = {
    "encoder": (_vector(), _tree()),
    "decoder": (_vector(weights="decoder"), _tree()),
    "mix-with-components": (_vector(weights="mix", encoder_share=0.7, pca=(0.1, -0.05)), _tree()),
    "without-centroid": (_vector(centroid=False), _tree()),
    "own-scale": (_vector(feature=123, scale=3.5), _tree()),
    "vocabulary": (_vector(SIXTH, 150, weights="vocabulary"), _tree()),
    "mapped": (_vector(SIXTH, 150, weights="mapped"), _tree()),
    "weights-that-suit": (_vector(FIRST, 5), _tree()),
    "tokens": (_vector(weights="tokens", tokens="king - man + woman"), _tree()),
    "tokens-without-centroid": (_vector(weights="tokens", tokens='"king"*0.5 + #1234', centroid=False), _tree()),
    "random": (_vector(weights="random"), _tree()),
    "centroid": (_vector(weights="centroid"), _tree(cutoff=4e-3)),
    "several-features": (_vector(feature="927*1.0 + 648*-0.5"), _tree()),
    "features-of-two-saes": (_vector(feature=f"123 + {SIXTH}:12*0.5", weights="decoder"), _tree()),
    "top-k-0": (_vector(), _tree(top_k=0, cutoff=3e-3)),
    "top-k-2": (_vector(feature=648), _tree(top_k=2)),
    "stop-off": (_vector(), _tree(stop=False, cutoff=1e-3)),
    "most-nodes": (_vector(feature=1785), _tree(top_k=0, cutoff=1e-4, max_nodes=50)),
    "longest-path": (_vector(feature=648), _tree(max_depth=3)),
    "injected": (_vector(SIXTH, 150, weights="decoder"), _tree(inject_layer=1)),
    "injected-by-adding": (_vector(), _tree(inject_layer=3, inject_mode="add", inject_scale=0.5)),
    "steered": (_vector(SIXTH, 150, weights="decoder"), _tree(steer_strength=0.5, steer_at="all")),
    "clamped": (_vector(), _tree(clamp=1, steer_at="prompt")),
    "clamped-deep": (_vector(SIXTH, 150, weights="vocabulary"), _tree(clamp=0.5, steer_at="ghost")),
    "all-interventions": (
        _vector(SIXTH, 150, weights="decoder"),
        _tree(inject_layer=6, steer_strength=-0.3, clamp=0.5, steer_at="all"),
    ),
    "prompt-of-the-menu": (_vector(feature=648), _tree(prompt="category")),
    "prompt-of-ones-own": (_vector(feature=648), _tree(prompt="Ein „{ghost}“ ist ein “", max_depth=5)),
    "chat-of-the-menu": (_vector(), _tree(prompt="chat-meaning")),
    "chat-with-ghost-in-answer": (
        _vector(), _tree(prompt="Tell me a word.", chat=True, answer='"{ghost}" is another word for "')
    ),
}

# Of TREES: those that are checked, seconds each. Evidence is about one feature.
CHECKED = ("encoder", "vocabulary", "injected")

_TOP = {"top": 12}
# By name: the vector, the list, and whether it has evidence.
LISTS = {
    "score": (_vector(), mt.ListRecipe(**_TOP), False),
    "score-of-other-exponent": (_vector(), mt.ListRecipe(exponent=2.5, **_TOP), False),
    "score-other-end": (_vector(), mt.ListRecipe(negative=True, **_TOP), False),
    "score-checked": (_vector(), mt.ListRecipe(**_TOP), True),
    "score-of-words-checked": (_vector(FIRST, 5), mt.ListRecipe(words=True, **_TOP), True),
    "cosine": (_vector(weights="decoder"), mt.ListRecipe(measure="cosine", **_TOP), False),
    "cosine-other-end": (_vector(), mt.ListRecipe(measure="cosine", negative=True, words=True, **_TOP), False),
    "dot": (_vector(centroid=False), mt.ListRecipe(measure="dot", **_TOP), False),
    "logit-lens": (_vector(SIXTH, 150, weights="decoder"), mt.ListRecipe(measure="logit_lens", **_TOP), False),
    "logit-lens-checked": (_vector(), mt.ListRecipe(measure="logit_lens", words=True, **_TOP), True),
    "activation": (_vector(SIXTH, 150), mt.ListRecipe(measure="activation", **_TOP), False),
    "activation-checked": (_vector(), mt.ListRecipe(measure="activation", **_TOP), True),
    "tokens": (_vector(weights="tokens", tokens="king - man + woman"), mt.ListRecipe(**_TOP), False),
    "several-features": (_vector(feature="927*1.0 + 648*-0.5"), mt.ListRecipe(measure="cosine", **_TOP), False),
    "components": (_vector(pca=(0.2, 0.1)), mt.ListRecipe(**_TOP), False),
    "mapped-checked": (_vector(SIXTH, 150, weights="mapped"), mt.ListRecipe(measure="cosine", **_TOP), True),
}

# One of each way in which architectures differ: tied, learned positions, scaled with windows, attention beside the MLP.
TINY = ("llama", "gpt2", "gemma2", "gpt_neox")
