"""What a user asks for: the settings of a vector, a tree and a token list, checked before any work.

A setting is added here, as a field: its name is the command line's option, the API's parameter and the key of the tree
JSON; its type and its help are what command line and API tell of it.
"""

import re
from dataclasses import MISSING, dataclass, field, fields, replace
from types import NoneType
from typing import Literal, get_args, get_type_hints

from multitool.errors import UserError, number, shown, whole
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.prompts import PROMPTS, Prompt
from multitool.recipes.weighted_sums import Term, feature_terms, features_written, token_terms, tokens_written

DEFAULT_PROMPT = PROMPTS["definition"].prompt
GHOST = "{ghost}"
MAX_NODES_LIMIT = 20_000
TOP_LIMIT = 10_000
TOP_K_LIMIT = 100
MAX_DEPTH_LIMIT = 200

# What a token list is ordered by, and what that is; the formulas: ListRecipe.
MEASURES = {
    "score": "nearness to the vector against nearness to the centroid",
    "cosine": "nearness to the vector alone, the cosine of the angle between them",
    "dot": "the dot product with the vector, which favours tokens with long embeddings",
    "logit_lens": "how much the direction, read by the model's final norm and unembedding, makes it say the token",
    "activation": "how strongly the token alone fires the feature, from a vocabulary scan",
}

# Where steering and clamping act.
POSITIONS = {
    "ghost": "where the ghost stands",
    "prompt": "at every token of the prompt",
    "all": "at every token, the tree's own too",
}

Weights = Literal[tuple(DIRECTIONS)]
Measure = Literal[tuple(MEASURES)]
Position = Literal[tuple(POSITIONS)]
InjectMode = Literal["replace", "add"]

_CLOSING = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "„": "“", "`": "`"}


@dataclass(frozen=True)
class RecipeField:
    """A field of a recipe, as command line and API offer it."""

    name: str
    type: object  # without "or None"
    default: object  # MISSING: it must be given
    help: str  # a sentence without its full stop


def _setting(default=MISSING, *, help: str):
    return field(default=default, metadata={"help": help})


def recipe_fields(kind: type) -> list[RecipeField]:
    """The settings of a kind of recipe, in their order."""
    types = get_type_hints(kind)
    return [
        RecipeField(field.name, _without_none(types[field.name]), field.default, field.metadata["help"])
        for field in fields(kind)
    ]


def _without_none(kind):
    return kind if NoneType not in get_args(kind) else next(part for part in get_args(kind) if part is not NoneType)


@dataclass(frozen=True, kw_only=True)
class VectorRecipe:
    """How the ghost token's vector is made. Raises UserError for a value that cannot be.

    With the raw embeddings ``E``, their centroid ``c``, ``u(x) = x/|x|`` and the k-th principal component ``p_k``:
    ``v = c + scale·g``, or ``scale·g`` without the centroid; ``g = (1 - sum w_k) f + sum w_k p_k`` for the weights
    ``w`` in ``pca``. The direction ``f`` of feature ``i`` is, by ``weights``,

    - ``encoder``: ``u(W_enc[:, i])``; ``decoder``: ``u(W_dec[i])``;
    - ``mix``: ``u(a·u(W_enc[:, i]) + (1-a)·u(W_dec[i]))`` with ``a`` the encoder's share;
    - ``vocabulary``, ``mapped``: see ``firing``;
    - ``tokens``: ``u(o)`` with ``o = sum w_t (E_t - c)``, or ``sum w_t E_t`` without the centroid (Mikolov et al.
      2013); their scale is ``|o|`` if none is given, so that a single token is its own embedding;
    - ``random``: a standard normal vector's, drawn with the feature's number as seed;
    - ``centroid``: 0, so that only the components are left.

    Of several features with weights it is ``u(sum w_j f_j)``.

    >>> decoder = mt.VectorRecipe(sae="demo/hook_embed", feature=927, weights="decoder", scale=2.5)
    >>> several = mt.VectorRecipe(sae="demo/hook_embed", feature="927 - 648*0.5")
    >>> queen = mt.VectorRecipe(sae="demo/hook_embed", feature=927, weights="tokens", tokens="king - man + woman")
    """

    sae: str = _setting(help="the SAE: RELEASE/SAE_ID as in sae-lens, or demo/…")
    feature: int | str = _setting(
        help='the feature\'s number, from 0; or several features with weights, "123*1.0 + 456*-0.5", also of other '
        'SAEs of the same model, "123*0.5 + demo/blocks.6.hook_resid_post:12*0.5"'
    )
    weights: Weights | None = _setting(
        None, help="what gives the direction: " + "; ".join(f"{kind}: {made.help}" for kind, made in DIRECTIONS.items())
        + " (default: what suits the SAE)",
    )
    encoder_share: float = _setting(0.5, help="the encoder's share of mix, 0 to 1")
    tokens: str = _setting(
        "", help='with weights tokens: real tokens, added and subtracted, e.g. king - man + woman or king*0.5 + '
        'queen*0.5; an exact token in double quotes, or by its number as #1234'
    )
    centroid: bool = _setting(True, help="start from the centroid of all token embeddings")
    scale: float | None = _setting(
        None, help="length of the direction (default: the model's mean distance of tokens from their centroid; of "
        "tokens their own)"
    )
    pca: tuple[float, ...] = _setting((), help="weights of the first principal components of the token embeddings")

    def __post_init__(self):
        if not isinstance(self.sae, str) or not self.sae.strip():
            raise UserError(f"sae is {shown(self.sae)}; name one as RELEASE/SAE_ID, e.g. demo/hook_embed.")
        _keep(self, "sae", self.sae.strip())
        _keep(self, "feature", _feature(self.feature))
        if self.weights is not None and self.weights not in tuple(DIRECTIONS):
            raise UserError(f"weights is {shown(self.weights)}; valid are {', '.join(DIRECTIONS)}.")
        _keep(self, "encoder_share", number(self.encoder_share, "encoder_share", "from 0 to 1", lambda x: 0 <= x <= 1))
        self._check_tokens()
        if isinstance(self.feature, str) and self.weights and not DIRECTIONS[self.weights].of_feature:
            raise UserError(
                f"feature is {shown(self.feature)}, and the weights {self.weights} take nothing of a feature. Give one "
                "feature's number with them."
            )
        _check_bool(self.centroid, "centroid")
        if self.scale is not None:
            _keep(self, "scale", number(self.scale, "scale", "above 0 and at most 1e6", lambda x: 0 < x <= 1e6))
        if not isinstance(self.pca, (list, tuple)):
            raise UserError(f"pca is {shown(self.pca)}; it must be a list of component weights, e.g. [0.2, 0.1].")
        _keep(self, "pca", tuple(number(w, "a weight in pca", "within ±1e6", lambda x: abs(x) <= 1e6)
                                 for w in self.pca))

    def _check_tokens(self) -> None:
        if not isinstance(self.tokens, str):
            raise UserError(f"tokens is {shown(self.tokens)}; it must be a text, e.g. king - man + woman.")
        _keep(self, "tokens", self.tokens.strip())
        if self.weights == "tokens":
            _keep(self, "tokens", tokens_written(token_terms(self.tokens)))
        elif self.tokens:
            raise UserError(f"tokens is {shown(self.tokens)}, which goes with the weights tokens only. Choose these.")

    @property
    def terms(self) -> tuple[Term, ...]:
        """The features that the direction is made from, each with its weight."""
        return (Term(None, self.feature, 1.0),) if isinstance(self.feature, int) else feature_terms(self.feature)

    def single_feature(self) -> int:
        """The one feature. Raises UserError if they are several: what is known of a feature is not known of a mix."""
        if isinstance(self.feature, str):
            raise UserError(
                f"Evidence is about one feature, as are activations, clamps and suggestions, and feature is "
                f"{shown(self.feature)}, a weighted list. Give one feature's number for it."
            )
        return self.feature

    def by(self, weights: str, **settings) -> "VectorRecipe":
        """The recipe with other weights, and other settings besides."""
        return replace(self, weights=weights, tokens=self.tokens if weights == "tokens" else "", **settings)


@dataclass(frozen=True, kw_only=True)
class TreeRecipe:
    """How a definition tree is grown. Raises UserError for a value that cannot be.

    What is done to the residual stream ``x`` meanwhile, with ``m`` the mean norm of residuals at the place on plain
    prose (``interventions.mean_residual_norm``), ``g`` the vector's direction, and ``z`` the SAE's activations
    on ``x``:

    - ``inject_layer`` L from 0 on: at the ghost's position behind layer L, ``inject_scale·m·g`` in the place of ``x``,
      or added to it; up to there the model reads the word that holds the ghost's place (SelfIE, Chen et al. 2024;
      Patchscopes, Ghandeharioun et al. 2024);
    - ``steer_strength`` s: ``x + s·m·u(W_dec[i])`` at the SAE's hook (activation addition, Turner et al. 2023);
    - ``clamp`` t: ``x + (t·z_max - z_i)·W_dec[i]`` at the SAE's hook, ``z_max`` the feature's typical maximum
      (``steering.typical_maximum``); what the SAE does not reconstruct stays (Templeton et al. 2024).

    At one place they act in this order; the last two at the positions of ``steer_at``.

    >>> mt.TreeRecipe(prompt="synonym", cutoff=1e-3).prompt
    'A synonym of "{ghost}" is "'
    >>> clamped = mt.TreeRecipe(clamp=1, steer_at="prompt")
    """

    prompt: str = _setting(
        DEFAULT_PROMPT, help="template with {ghost} in it once, or one of the menu: " + ", ".join(PROMPTS)
    )
    chat: bool = _setting(
        False, help="put the prompt into the chat template of an instruction-tuned model, as what a user says"
    )
    answer: str = _setting(
        "", help="with chat: how the assistant's answer begins; it may hold {ghost} in place of the prompt"
    )
    top_k: int = _setting(
        5, help="how many next tokens of each path are looked at, the most probable ones; 0: all that reach the cutoff"
    )
    cutoff: float = _setting(5e-5, help="smallest cumulative probability of a node, between 0 and 1")
    max_depth: int = _setting(25, help="longest path in tokens")
    max_nodes: int = _setting(2000, help="keep this many nodes, the most probable ones")
    stop: bool = _setting(True, help="end definitions at the closing quote or the end of the text")
    steer_strength: float = _setting(
        0.0, help="while the tree grows, push the residual stream at the SAE's hook along the feature's decoder "
        "direction, by this many times the mean residual norm there; 0: off",
    )
    clamp: float | None = _setting(
        None, help="while the tree grows, set the feature's activation at the SAE's hook to this many times its "
        "typical maximum (default: off)",
    )
    steer_at: Position = _setting(
        "ghost", help="where steering and clamping act: " + "; ".join(f"{at}: {what}" for at, what in POSITIONS.items())
    )
    inject_layer: int = _setting(
        -1, help="put the vector into the residual stream behind this layer, at the ghost's position; -1: as its "
        "embedding",
    )
    inject_mode: InjectMode = _setting(
        "replace", help="with inject_layer: replace what the stream holds there, or add to it"
    )
    inject_scale: float = _setting(
        1.0, help="with inject_layer: length of the vector's direction, in mean residual norms there"
    )

    def __post_init__(self):
        _check_bool(self.chat, "chat")
        if not isinstance(self.answer, str):
            raise UserError(f"answer is {shown(self.answer)}; it must be a text, how the assistant's answer begins.")
        if isinstance(self.prompt, str) and self.prompt in PROMPTS:
            self._take_from_menu(PROMPTS[self.prompt])
        self._check_ghost()
        if self.answer and not self.chat:
            raise UserError(
                f"answer is {shown(self.answer)}, and chat is off; only in a chat does an answer follow the prompt. "
                "Turn chat on, or leave answer out."
            )
        _keep(self, "top_k", whole(self.top_k, "top_k", 0, TOP_K_LIMIT))
        _keep(self, "cutoff", check_cutoff(self.cutoff))
        _keep(self, "max_depth", whole(self.max_depth, "max_depth", 1, MAX_DEPTH_LIMIT))
        _keep(self, "max_nodes", whole(self.max_nodes, "max_nodes", 1, MAX_NODES_LIMIT))
        _check_bool(self.stop, "stop")
        strength = number(self.steer_strength, "steer_strength", "within ±100", lambda x: abs(x) <= 100)
        _keep(self, "steer_strength", strength)
        if self.clamp is not None:
            _keep(self, "clamp", number(self.clamp, "clamp", "within ±100", lambda x: abs(x) <= 100))
        if self.steer_at not in tuple(POSITIONS):
            raise UserError(f"steer_at is {shown(self.steer_at)}; valid are {', '.join(POSITIONS)}.")
        _keep(self, "inject_layer", whole(self.inject_layer, "inject_layer", -1, 1000))
        if self.inject_mode not in get_args(InjectMode):
            raise UserError(f"inject_mode is {shown(self.inject_mode)}; valid are {', '.join(get_args(InjectMode))}.")
        scale = number(self.inject_scale, "inject_scale", "above 0 and at most 1000", lambda x: 0 < x <= 1000)
        _keep(self, "inject_scale", scale)

    @property
    def intervenes(self) -> bool:
        """Whether anything is done to the residual stream while the tree grows."""
        return self.steer_strength != 0 or self.clamp is not None or self.inject_layer >= 0

    def _take_from_menu(self, named: Prompt) -> None:
        """The template in place of its name; a chat and an answer that are given count before the menu's."""
        _keep(self, "prompt", named.prompt)
        _keep(self, "chat", self.chat or named.chat)
        _keep(self, "answer", self.answer or named.answer)

    def _check_ghost(self) -> None:
        parts = {"prompt": self.prompt, "answer": self.answer} if self.answer else {"prompt": self.prompt}
        found = sum(part.count(GHOST) for part in parts.values() if isinstance(part, str))
        if not isinstance(self.prompt, str) or found != 1:
            told = " and ".join(f"{name} is {shown(part)}" for name, part in parts.items())
            raise UserError(
                f"{told} with {GHOST} in it {found} times; it must stand there exactly once, where the unknown token "
                f"belongs, e.g. {DEFAULT_PROMPT}; or name a prompt of the menu: {', '.join(PROMPTS)}."
            )

    @property
    def closing_quote(self) -> str | None:
        """What ends a definition: the partner of the quote left open where the model goes on."""
        return closing_quote(self.answer if self.chat else self.prompt)


@dataclass(frozen=True, kw_only=True)
class ListRecipe:
    """How a token list is ranked. Raises UserError for a value that cannot be.

    >>> by_lens = mt.ListRecipe(measure="logit_lens", top=20, words=True)

    With the vector ``v``, the direction ``g`` with its components mixed in, the embeddings ``E`` and their centroid
    ``c`` (see ``vector.placed``), a token ``t`` has as its measure

    - ``score``: ``(1 - cos(v, E_t))^exponent / (1 - cos(c, E_t))``, smallest first; the published score;
    - ``cosine``: ``cos(v, E_t)``, largest first, as all that follow;
    - ``dot``: ``v · E_t``;
    - ``logit_lens``: entry ``t`` of ``W_U · norm(scale · g)``, with the model's own final norm and unembedding:
      the logits if its residual stream held nothing but the direction (nostalgebraist, "interpreting GPT: the logit
      lens", 2020). Without the centroid, which lies among the embeddings;
    - ``activation``: the SAE's activation of the feature on the token alone, behind what stands before a text.

    ``negative`` lists the same from the other end. A word, for ``words``, is what ``vocabulary.is_word`` says.
    """

    exponent: float = _setting(
        1.4, help="of score: trades closeness to the vector (large) against distance from the centroid (small)"
    )
    top: int = _setting(100, help="how many tokens")
    measure: Measure = _setting(
        "score", help="what orders them: " + "; ".join(f"{name}: {what}" for name, what in MEASURES.items())
    )
    negative: bool = _setting(False, help="the other end: the tokens that fit worst (not by activation)")
    words: bool = _setting(
        False, help="only tokens that are words: a blank and letters, or letters of a script written without blanks"
    )

    def __post_init__(self):
        if not isinstance(self.measure, str) or self.measure not in MEASURES:
            raise UserError(f"measure is {shown(self.measure)}; valid are {', '.join(MEASURES)}.")
        _check_bool(self.negative, "negative")
        _check_bool(self.words, "words")
        if self.negative and self.measure == "activation":
            raise UserError(
                "negative is true and measure is 'activation', which has no other end: on most tokens the feature does "
                "not fire at all. Choose another measure, or leave negative out."
            )
        _keep(self, "exponent", number(self.exponent, "exponent", "above 0 and at most 100", lambda x: 0 < x <= 100))
        _keep(self, "top", whole(self.top, "top", 1, TOP_LIMIT))

    def needs_activations(self, *, evidence: bool) -> bool:
        """Whether the list, or its evidence, takes how strongly each token fires the feature: a vocabulary scan."""
        return evidence or self.measure == "activation"


def recipes(settings: dict) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipe in the settings of a definition tree.

    Raises:
        UserError: they lack something, or a value cannot be.
    """
    vector, tree = (
        {name: settings[name] for name in kind.__dataclass_fields__ if name in settings}
        for kind in (VectorRecipe, TreeRecipe)
    )
    missing = {"sae", "feature"} - vector.keys()
    if missing:
        raise UserError(f"This tree's settings do not tell its {' and '.join(sorted(missing))}, so it cannot be grown.")
    return VectorRecipe(**vector), TreeRecipe(**tree)


def closing_quote(prompt: str) -> str | None:
    """The quote that closes a definition: the partner of the quote that the prompt leaves open at its end."""
    return _CLOSING.get(prompt.rstrip()[-1:])


def check_cutoff(value) -> float:
    return number(value, "cutoff", "between 0 and 1 (both excluded), e.g. 5e-5", lambda x: 0 < x < 1)


def _feature(value) -> int | str:
    """A feature's number, or a weighted list in its one spelling."""
    if isinstance(value, str) and not re.fullmatch(r"\s*-?[0-9]{1,15}\s*", value):
        return features_written(feature_terms(value))
    return whole(int(value) if isinstance(value, str) else value, "feature", 0)


def _check_bool(value, name: str) -> None:
    if not isinstance(value, bool):
        raise UserError(f"{name} is {shown(value)}; it must be true or false.")


def _keep(recipe, name: str, value) -> None:
    object.__setattr__(recipe, name, value)
