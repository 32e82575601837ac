"""What a model is given where embeddings are not those of its tokens.

Some models' layers look every token up once more for themselves (per-layer embeddings: Gemma 3n, Gemma 4 E2B and E4B).
Given embeddings alone, transformers leaves those out or guesses the tokens from them; so they are looked up here.
"""

import torch
from torch import Tensor, nn

from multitool.errors import UserError


def scaled_rows(module: nn.Module, rows: Tensor) -> Tensor:
    """Rows of the raw embedding matrix as the embedding module gives them: some models (Gemma) multiply them in there.

    In the weights' own precision, so that a real token's row becomes exactly that token's.
    """
    factor = getattr(module, "embed_scale", None)
    return rows if factor is None else rows * torch.as_tensor(factor).to(rows)


def given(model, embeddings: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
    """The arguments of a forward pass: the embeddings, and what the model's layers look up of the tokens.

    Args:
        model: a transformers causal LM.
        embeddings: (batch, positions, d_model), as the embedding module gives them.
        token_ids: (batch, positions), the tokens that stand there. A ghost has no entry in the layers' tables: there
            it is the word that holds its place.

    Raises:
        UserError: the layers look tokens up in a way that is not known.
    """
    arguments = {"inputs_embeds": embeddings}
    if not getattr(model.config.get_text_config(), "hidden_size_per_layer_input", None):
        return arguments
    look_up = getattr(model.get_decoder(), "get_per_layer_inputs", None)
    if look_up is None:
        raise UserError(
            f"The layers of a {type(model).__name__} look tokens up for themselves (hidden_size_per_layer_input in its "
            "config.json), and how is not known here, so no prompt with a ghost can be given to it. Use another model."
        )
    return arguments | {"per_layer_inputs": look_up(token_ids.to(embeddings.device))}
