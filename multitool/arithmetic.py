"""Token arithmetic: real tokens' embeddings, added and subtracted, as in ``king - man + woman``."""

import torch
from torch import Tensor

from multitool.embedding import EmbeddingSpace
from multitool.errors import UserError, shown
from multitool.subject import Subject
from multitool.terms import TokenTerm, token_terms


def tokens_meant(subject: Subject, text: str) -> list[tuple[int, float]]:
    """The token ids of an arithmetic and their weights, in order.

    A word is the token with a blank before it, if there is one, or else the token without.

    Raises:
        UserError: it cannot be read, or a term of it is no single token of the model.
    """
    return [(_token_id(subject, term), term.weight) for term in token_terms(text)]


def _token_id(subject: Subject, term: TokenTerm) -> int:
    if term.token_id is not None:
        if term.token_id < subject.space.n_tokens:
            return term.token_id
        raise UserError(
            f"tokens has {term}; {subject.name} has {subject.space.n_tokens} tokens, #0 to #"
            f"{subject.space.n_tokens - 1}."
        )
    for text in [term.text] if term.exact else [" " + term.text, term.text]:
        if text in subject.token_ids:
            return subject.token_ids[text]
    ids = subject.tokenizer(("" if term.exact else " ") + term.text, add_special_tokens=False)["input_ids"]
    parts = ", ".join(shown(subject.token_texts[token_id]) for token_id in ids if token_id < subject.space.n_tokens)
    raise UserError(
        f"tokens has {shown(term.text)}, which is no single token of {subject.name}: it splits into {parts[:200]}. Use "
        'another word, or one of these tokens in double quotes, e.g. " king".'
    )


def offset(space: EmbeddingSpace, tokens: list[tuple[int, float]], *, centroid: bool) -> Tensor:
    """``sum w_t (E_t - c)``, or without the centroid ``sum w_t E_t``: (d_model,), float32; zeros if they cancel.

    The arithmetic is that of Mikolov, Yih and Zweig, "Linguistic Regularities in Continuous Space Word
    Representations", NAACL 2013.
    """
    token_ids, weights = zip(*tokens, strict=True)
    rows = space.E[list(token_ids)].float()
    terms = torch.tensor(weights)[:, None] * (rows - space.centroid if centroid else rows)
    total = terms.sum(0)
    # What rounding left of tokens that cancel is no direction.
    return total if total.norm() > 1e-6 * terms.norm() else torch.zeros_like(total)
