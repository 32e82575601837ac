"""The Gradio API: named, typed endpoints for programs. They answer with plain JSON and files."""

from collections.abc import Callable
from typing import Literal, TypedDict

import gradio as gr

from multitool import engine
from multitool.document import read_tree
from multitool.draw import render
from multitool.loading import Library
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.registry import saes as find_saes
from multitool.ui_common import ON_MODEL, file_data, save, shown_errors
from multitool.vector import DIRECTIONS

Weights = Literal[tuple(DIRECTIONS)]
File = dict  # a file with its url, as gradio_client downloads it


class Table(TypedDict):
    """A dataframe as Gradio sends it."""

    headers: list[str]
    data: list[list]
    metadata: None


def add_endpoints(library: Library, opening: VectorRecipe) -> None:
    """Add the API to the Blocks that are being built.

    Args:
        opening: the SAE and feature that calls without them get.
    """

    def definition_tree(
        sae: str = opening.sae,
        feature: int = opening.feature,
        weights: Weights = VectorRecipe.weights,
        encoder_share: float = VectorRecipe.encoder_share,
        centroid: bool = VectorRecipe.centroid,
        scale: float | None = VectorRecipe.scale,
        pca: list[float] | None = None,
        prompt: str = TreeRecipe.prompt,
        top_k: int = TreeRecipe.top_k,
        cutoff: float = TreeRecipe.cutoff,
        max_depth: int = TreeRecipe.max_depth,
        max_nodes: int = TreeRecipe.max_nodes,
        stop: bool = TreeRecipe.stop,
    ) -> tuple[File, dict]:
        """Grow a definition tree: what the model says a token with this feature's vector means.

        Streams while it grows (no picture yet, the tree so far); the last answer is whole.

        Args:
            sae: the SAE as RELEASE/SAE_ID; /saes lists them.
            feature: the feature's number, from 0.
            weights: which weights give the direction: encoder, decoder or mix.
            encoder_share: the encoder's share of mix, 0 to 1.
            centroid: start from the centroid of all token embeddings.
            scale: length of the direction; null takes the model's mean distance of tokens from their centroid.
            pca: weights of the first principal components of the token embeddings.
            prompt: template with {ghost} in it once.
            top_k: continuations looked at per node.
            cutoff: smallest cumulative probability of a node, between 0 and 1.
            max_depth: longest path in tokens.
            max_nodes: keep this many nodes, the most probable ones.
            stop: end definitions at the closing quote or the end of the text.

        Returns:
            The picture (PNG file) and the tree as JSON (schema sae-multitool/definition-tree/1).
        """
        vector = _vector(sae, feature, weights, encoder_share, centroid, scale, pca)
        recipe = TreeRecipe(
            prompt=prompt, top_k=top_k, cutoff=cutoff, max_depth=max_depth, max_nodes=max_nodes, stop=stop
        )
        for document in engine.definition_trees(library, vector, recipe):
            if not document.complete:
                yield None, document.to_dict()
        yield _picture(document), document.to_dict()

    def trim_tree(tree: dict, cutoff: float = 1e-3) -> tuple[File, dict]:
        """Leave out the less probable nodes of a definition tree; needs no model.

        Args:
            tree: a tree JSON as /definition_tree returns it.
            cutoff: smallest cumulative probability of a node that stays, between 0 and 1.

        Returns:
            The picture (PNG file) and the trimmed tree as JSON.
        """
        document = read_tree(tree).trimmed(cutoff)
        return _picture(document), document.to_dict()

    def token_list(
        sae: str = opening.sae,
        feature: int = opening.feature,
        weights: Weights = VectorRecipe.weights,
        encoder_share: float = VectorRecipe.encoder_share,
        centroid: bool = VectorRecipe.centroid,
        scale: float | None = VectorRecipe.scale,
        pca: list[float] | None = None,
        exponent: float = ListRecipe.exponent,
        top: int = ListRecipe.top,
    ) -> Table:
        """List the tokens nearest to a feature's vector, discounting those near to everything.

        Args:
            sae: the SAE as RELEASE/SAE_ID; /saes lists them.
            feature: the feature's number, from 0.
            weights: which weights give the direction: encoder, decoder or mix.
            encoder_share: the encoder's share of mix, 0 to 1.
            centroid: start from the centroid of all token embeddings.
            scale: length of the direction; null takes the model's mean distance of tokens from their centroid.
            pca: weights of the first principal components of the token embeddings.
            exponent: trades closeness to the vector (large) against distance from the centroid (small).
            top: how many tokens.

        Returns:
            A dataframe: rank, token, token_id, score, distance_to_vector, distance_to_centroid.
        """
        vector = _vector(sae, feature, weights, encoder_share, centroid, scale, pca)
        table = engine.token_table(library, vector, ListRecipe(exponent=exponent, top=top))
        return {"headers": list(engine.TOKEN_COLUMNS), "data": table.rows, "metadata": None}

    def saes(search: str = "") -> list[dict]:
        """The SAEs that can be loaded, and on which model.

        Args:
            search: words that must all occur in the SAE's name or its model's.

        Returns:
            One object per SAE: sae, model, hook, layer, neuronpedia_id.
        """
        return [
            {"sae": entry.name, "model": entry.model, "hook": entry.hook, "layer": entry.layer,
             "neuronpedia_id": entry.neuronpedia_id}
            for entry in find_saes(search)
        ]

    for endpoint in (definition_tree, token_list):
        _add(endpoint, **ON_MODEL)
    for endpoint in (trim_tree, saes):
        _add(endpoint)


def _add(endpoint: Callable, **queue) -> None:
    gr.api(shown_errors(endpoint, on_page=False), api_name=endpoint.__name__, **queue)


def _vector(sae, feature, weights, encoder_share, centroid, scale, pca) -> VectorRecipe:
    return VectorRecipe(
        sae=sae, feature=feature, weights=weights, encoder_share=encoder_share, centroid=centroid, scale=scale,
        pca=pca or (),
    )


def _picture(document) -> File:
    return file_data(save(render(document, ["png"])["png"], document.settings, "tree.png"), "image/png")
