"""What a user asks for: the settings of a vector, a tree and a token list, checked before any work.

A setting is added here, as a field (``recipes.fields``): its name is the command line's option, the API's and a link's
parameter and the key of the tree JSON; type, range, default and help are told there as they are declared here.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SkipValidation, StringConstraints

from multitool.errors import UserError, shown
from multitool.recipes.directions import DIRECTIONS, takes
from multitool.recipes.fields import Declared, ListAsTuple, Valid, Whole, check, recipe_fields
from multitool.recipes.own_vectors import (
    LONGEST_VECTOR_NAME,
    VectorNumbers,
    is_place,
    place_named,
    plain_numbers,
    rounded_numbers,
    vector_told,
)
from multitool.recipes.prompts import PROMPTS, Prompt
from multitool.recipes.weighted_sums import Term, feature_terms, features_written, token_terms, tokens_written
from multitool.text import is_text

DEFAULT_PROMPT = PROMPTS["definition"].prompt
GHOST = "{ghost}"
MAX_NODES_LIMIT = 10_000_000  # memory ends long before
MAX_DEPTH_LIMIT = 200
MAX_COMPONENTS = 20_000  # more than any model's embeddings have
LONGEST_PROMPT = 2_000  # characters; with the largest trees a longer one takes hours
OF_OWN_VECTOR = ("vector", "vector_name")  # fields that a vector of one's own has, and a feature has not
_LONGEST_NAME = 4_096  # characters; a folder's is the longest

# What a token list is ordered by, and what that is; the formulas: ListRecipe.
MEASURES = {
    "score": "nearness to the vector against nearness to the centroid",
    "cosine": "nearness to the vector alone, the cosine of the angle between them",
    "dot": "the dot product with the vector, which favours tokens with long embeddings",
    "logit_lens": "how much the direction, read by the model's final norm and unembedding, makes it say the token",
    "jacobian_lens": "how much the direction, carried on by the layers after the SAE as they do on average, makes it "
    "say the token",
    "activation": "how strongly the token alone fires the feature, from a vocabulary scan",
}

LENSES = ("logit_lens", "jacobian_lens")  # measures of what the direction makes the model say

# Where steering and clamping act.
POSITIONS = {
    "ghost": "where the ghost stands",
    "prompt": "at every token of the prompt",
    "all": "at every token, the tree's own too",
}

SPARING = ("prompt", "all")  # where they can leave attention sinks alone

if TYPE_CHECKING:  # a type checker does not know what is in the tables
    Weights = str
    Measure = str
    Position = str
else:
    Weights, Measure, Position = (Literal[tuple(table)] for table in (DIRECTIONS, MEASURES, POSITIONS))
InjectMode = Literal["replace", "add"]
Dtype = Literal["float32", "bfloat16", "float16"]  # of a running model
Device = Literal["auto", "cpu", "cuda"]  # where it runs; auto: on a GPU if there is one
SaeName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_LONGEST_NAME),
    Valid("name one as RELEASE/SAE_ID, e.g. demo/hook_embed"),
    Field(description="the SAE: RELEASE/SAE_ID as in sae-lens, or demo/…"),
]
Cutoff = Annotated[float, Field(gt=0, lt=1, examples=["5e-5"])]

_CLOSING = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "„": "“", "`": "`"}


@dataclass(frozen=True, kw_only=True)
class VectorRecipe(Declared):
    """How the ghost token's vector is made. Raises UserError for a value that cannot be.

    With the raw embeddings ``E``, their centroid ``c``, ``u(x) = x/|x|`` and the k-th principal component ``p_k``:
    ``v = c + scale·g``, or ``scale·g`` without the centroid; ``g = (1 - sum w_k) f + sum w_k p_k`` for the weights
    ``w`` in ``pca``. The direction ``f`` of feature ``i`` is, by ``weights``,

    - ``encoder``: ``u(W_enc[:, i])``; ``decoder``: ``u(W_dec[i])``;
    - ``mix``: ``u(a·u(W_enc[:, i]) + (1-a)·u(W_dec[i]))`` with ``a`` the encoder's share;
    - ``vocabulary``, ``mapped``: see ``vectors.scan_directions``;
    - ``pullback``: ``u(mean_b ∂/∂e [u(r(e))·W_enc[:, i]] at e = E_b)``, ``r(e)`` the residual at the SAE's hook for a
      token with embedding ``e``: see ``model.pullback``;
    - ``tokens``: ``u(o)`` with ``o = sum w_t (E_t - c)``, or ``sum w_t E_t`` without the centroid (Mikolov et al.
      2013); their scale is ``|o|`` if none is given, so that a single token is its own embedding;
    - ``random``: a standard normal vector's, drawn with the feature's number as seed;
    - ``centroid``: 0, so that only the components are left.

    Of several features with weights it is ``u(sum w_j f_j)``. A ``vector`` of one's own (``from_vector``) stands in the
    place of a feature: it is encoder and decoder alike.

    >>> decoder = mt.VectorRecipe(sae="demo/hook_embed", feature=927, weights="decoder", scale=2.5)
    >>> several = mt.VectorRecipe(sae="demo/hook_embed", feature="927 - 648*0.5")
    >>> queen = mt.VectorRecipe(sae="demo/hook_embed", feature=927, weights="tokens", tokens="king - man + woman")
    >>> probe = mt.VectorRecipe.from_vector([0.5] * 576, model="demo/SmolLM2-135M-Instruct-Q4_1", name="a probe")
    >>> probe
    VectorRecipe(vector='a probe (vector 15bc0838)', sae='model:demo/SmolLM2-135M-Instruct-Q4_1@hook_embed')
    """

    sae: SaeName
    feature: Annotated[
        Annotated[Whole, Field(ge=0)] | str, Field(description=
        'the feature\'s number, from 0; or several features with weights, "123*1.0 + 456*-0.5", also of other '
        'SAEs of the same model, "123*0.5 + demo/blocks.6.hook_resid_post:12*0.5"'),
    ]
    weights: Annotated[Weights | None, Field(description=(
        "what gives the direction: " + "; ".join(f"{kind}: {made.help}" for kind, made in DIRECTIONS.items())
        + " (default: what suits the SAE; in a list by lens the decoder)"
    ))] = None
    encoder_share: Annotated[float, Field(ge=0, le=1, description="the encoder's share of mix, 0 to 1")] = 0.5
    tokens: Annotated[
        str, StringConstraints(strip_whitespace=True), Field(examples=["king - man + woman"], description=(
        "with weights tokens: real tokens, added and subtracted, e.g. king - man + woman or king*0.5 + queen*0.5; an "
        "exact token in double quotes, or by its number as #1234"
    ))] = ""
    centroid: Annotated[bool, Field(description="start from the centroid of all token embeddings")] = True
    scale: Annotated[float | None, Field(gt=0, le=1e6, description=(
        "length of the direction (default: the model's mean distance of tokens from their centroid; of tokens their "
        "own)"
    ))] = None
    pca: Annotated[
        tuple[Annotated[float, Field(ge=-1e6, le=1e6, title="a weight in pca")], ...], ListAsTuple,
        Valid(f"it must be a list of at most {MAX_COMPONENTS:,} component weights, e.g. [0.2, 0.1]"),
        Field(max_length=MAX_COMPONENTS,
              description="weights of the first principal components of the token embeddings"),
    ] = ()
    vector: VectorNumbers = ()
    vector_name: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=LONGEST_VECTOR_NAME), Field(description=(
            "what results call that vector"
    ))] = ""

    def __post_init__(self):
        if isinstance(self.feature, str):
            self._keep("feature", _feature(self.feature))
        super().__post_init__()
        self._check_vector()
        if takes(self.weights, "tokens"):
            self._keep("tokens", tokens_written(token_terms(self.tokens)))
        elif self.tokens:
            raise UserError(f"tokens is {shown(self.tokens)}, which goes with the weights tokens only. Choose these.")
        if isinstance(self.feature, str) and self.weights and not DIRECTIONS[self.weights].of_feature:
            raise UserError(
                f"feature is {shown(self.feature)}, and the weights {self.weights} take nothing of a feature. Give one "
                "feature's number with them."
            )

    @classmethod
    def from_vector(
        cls, vector, *, model: str, hook: str | None = None, name: str = "", **settings
    ) -> "VectorRecipe":
        """A vector of one's own in the place of a feature: a probe, a steering direction, a difference of means.

        Its length does not matter: ``scale`` gives one. Among the embeddings it is taken as it is; after a layer trees
        and lists carry it back to them (pullback), and a lens reads what it writes there.

        Args:
            vector: (d_model,) numbers: a list, a numpy array, a tensor. Kept in float32.
            model: its model's name: a hub id, a folder, or as ``Library.add_model`` gives it.
            hook: where it lies, as for SAEs: blocks.N.hook_resid_post, …; None: among the token embeddings.
            name: what results call it.
            settings: other fields of the recipe.

        Raises:
            UserError: it is not one row of finite numbers, is all zeros, or a setting cannot be.
        """
        numbers = plain_numbers(vector)
        for told, value in (("model", model), ("hook", hook)):
            check(value, told, str | None)
        return cls(sae=place_named(model, hook), feature=0, vector=tuple(numbers), vector_name=name, **settings)

    def __repr__(self) -> str:
        told = {"vector": self.vector_told} if self.vector else {}
        skipped = (*OF_OWN_VECTOR, *(("feature",) if self.vector and self.feature == 0 else ()))
        for field in recipe_fields(type(self)):  # type: ignore[arg-type]  # as in fields
            value = getattr(self, field.name)
            if value != field.default and field.name not in skipped:
                told[field.name] = value
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def settings(self) -> dict:
        """The fields for JSON, as results carry them; those of a vector of one's own only where there is one."""
        found = asdict(self) | {"pca": list(self.pca), "vector": list(self.vector)}
        if not self.vector:
            return {name: value for name, value in found.items() if name not in OF_OWN_VECTOR}
        return found

    @property
    def vector_told(self) -> str:
        """What a vector of one's own is called: its name and a hash of its numbers."""
        return vector_told(self.vector, self.vector_name)

    def _check_vector(self) -> None:
        """Keep a vector of one's own as float32 has it. Raises UserError if the recipe cannot be with it or without."""
        if not self.vector:
            if self.vector_name or is_place(self.sae):
                name, value = ("vector_name", self.vector_name) if self.vector_name else ("sae", self.sae)
                raise UserError(
                    f"{name} is {shown(value)}, which goes with a vector of your own only. Give one as vector, or "
                    "name a feature of an SAE."
                )
            return
        self._keep("vector", rounded_numbers(self.vector))
        if isinstance(self.feature, int):
            self._keep("feature", 0)  # what it counts as
        if self.weights and DIRECTIONS[self.weights].from_scan:
            raise UserError(
                f"The weights {self.weights} come of the tokens that fire a feature, and nothing tells when a vector "
                "of your own fires. Choose encoder (as it is), pullback or none."
            )

    @property
    def kind(self) -> str:
        """The weights, where they are told or have been found. Raises ValueError if they are left open."""
        if self.weights is None:
            raise ValueError("this recipe leaves its weights open: see jobs.features.with_weights")
        return self.weights

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
        return replace(self, weights=weights, tokens=self.tokens if takes(weights, "tokens") else "", **settings)


@dataclass(frozen=True, kw_only=True)
class TreeRecipe(Declared):
    """How a definition tree is grown. Raises UserError for a value that cannot be.

    What is done to the residual stream ``x`` meanwhile, with ``m`` the mean norm of residuals at the place on plain
    prose (``model.interventions.mean_residual_norm``), ``g`` the vector's direction, and ``z`` the SAE's activations
    on ``x``:

    - ``inject_layer`` L from 0 on: at the ghost's position after layer L, ``inject_scale·m·g`` in the place of ``x``,
      or added to it; up to there the model reads the word that holds the ghost's place (SelfIE, Chen et al. 2024;
      Patchscopes, Ghandeharioun et al. 2024);
    - ``steer_strength`` s: ``x + s·m·u(W_dec[i])`` at the SAE's hook (activation addition, Turner et al. 2023);
    - ``clamp`` t: ``x + (t·z_max - z_i)·W_dec[i]`` at the SAE's hook, ``z_max`` the feature's typical maximum
      (``jobs.steering.typical_maximum``); what the SAE does not reconstruct stays (Templeton et al. 2024).

    At one place they act in this order; the last two at the positions of ``steer_at``: without ``steer_sinks`` not at
    the prompt's first token and its special ones, unless the ghost stands there. (Trees of version 0.2 and before were
    grown with them; their files do not tell, and are read so.)

    >>> mt.TreeRecipe(prompt="synonym", cutoff=1e-3).prompt
    'A synonym of "{ghost}" is "'
    >>> clamped = mt.TreeRecipe(clamp=1, steer_at="prompt")
    """

    prompt: Annotated[str, SkipValidation, Field(description=(  # where {ghost} is counted, in _check_ghost
        "template with {ghost} in it once, or one of the menu: " + ", ".join(PROMPTS)
    ))] = DEFAULT_PROMPT
    chat: Annotated[bool, Field(description=(
        "put the prompt into the chat template of an instruction-tuned model, as what a user says"
    ))] = False
    answer: Annotated[
        str, Valid(f"it must be a text of at most {LONGEST_PROMPT:,} characters, how the assistant's answer begins"),
        Field(max_length=LONGEST_PROMPT, description=(
        "with chat: how the assistant's answer begins; it may hold {ghost} in place of the prompt"
    ))] = ""
    top_k: Annotated[Whole, Field(ge=0, le=100, description=(
        "how many next tokens of each path are looked at, the most probable ones; 0: all that reach the cutoff"
    ))] = 5
    cutoff: Annotated[
        Cutoff, Field(description="smallest cumulative probability of a node, between 0 and 1")
    ] = 5e-5
    max_depth: Annotated[Whole, Field(ge=1, le=MAX_DEPTH_LIMIT, description="longest path in tokens")] = 25
    max_nodes: Annotated[Whole, Field(ge=1, le=MAX_NODES_LIMIT, description=(
        "keep this many nodes, the most probable ones"
    ))] = 2000
    stop: Annotated[bool, Field(description="end definitions at the closing quote or the end of the text")] = True
    steer_strength: Annotated[float, Field(ge=-100, le=100, description=(
        "while the tree grows, push the residual stream at the SAE's hook along the feature's decoder direction, by "
        "this many times the mean residual norm there; 0: off"
    ))] = 0.0
    clamp: Annotated[float | None, Field(ge=-100, le=100, description=(
        "while the tree grows, set the feature's activation at the SAE's hook to this many times its typical maximum "
        "(default: off)"
    ))] = None
    steer_at: Annotated[Position, Field(description=(
        "where steering and clamping act: " + "; ".join(f"{at}: {what}" for at, what in POSITIONS.items())
    ))] = "ghost"
    steer_sinks: Annotated[bool, Field(description=(
        "with steer_at prompt or all: act on the prompt's first token and its special ones (BOS, a chat's markers) "
        "too, where models park attention and residuals can be a hundred times as long"
    ))] = False
    inject_layer: Annotated[Whole, Field(ge=-1, le=1000, description=(
        "put the vector into the residual stream after this layer, at the ghost's position; -1: as its embedding"
    ))] = -1
    inject_mode: Annotated[InjectMode, Field(description=(
        "with inject_layer: replace what the stream holds there, or add to it"
    ))] = "replace"
    inject_scale: Annotated[float, Field(gt=0, le=1000, description=(
        "with inject_layer: length of the vector's direction, in mean residual norms there"
    ))] = 1.0

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.prompt, str) and self.prompt in PROMPTS:
            self._take_from_menu(PROMPTS[self.prompt])
        self._check_ghost()
        check(self.prompt, "prompt", str)
        if self.answer and not self.chat:
            raise UserError(
                f"answer is {shown(self.answer)}, and chat is off; only in a chat does an answer follow the prompt. "
                "Turn chat on, or leave answer out."
            )

    @property
    def intervenes(self) -> bool:
        """Whether anything is done to the residual stream while the tree grows."""
        return self.steer_strength != 0 or self.clamp is not None or self.inject_layer >= 0

    def _take_from_menu(self, named: Prompt) -> None:
        """The template in place of its name; a chat and an answer that are given count before the menu's."""
        self._keep("prompt", named.prompt)
        self._keep("chat", self.chat or named.chat)
        self._keep("answer", self.answer or named.answer)

    def _check_ghost(self) -> None:
        if isinstance(self.prompt, str) and (len(self.prompt) > LONGEST_PROMPT or not is_text(self.prompt)):
            raise UserError(
                f"prompt is {shown(self.prompt)} with {len(self.prompt):,} characters; it must be a text of at most "
                f"{LONGEST_PROMPT:,} characters, with {GHOST} in it once."
            )
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
class ListRecipe(Declared):
    """How a token list is ranked. Raises UserError for a value that cannot be.

    >>> by_lens = mt.ListRecipe(measure="logit_lens", top=20, words=True)

    With the vector ``v``, the direction ``g`` with its components mixed in, the embeddings ``E`` and their centroid
    ``c`` (see ``vectors.vector.placed``), a token ``t`` has as its measure

    - ``score``: ``(1 - cos(v, E_t))^exponent / (1 - cos(c, E_t))``, smallest first; the published score;
    - ``cosine``: ``cos(v, E_t)``, largest first, as all that follow;
    - ``dot``: ``v · E_t``;
    - ``logit_lens``: entry ``t`` of ``W_U · norm(scale · g)``, with the model's own final norm and unembedding:
      the logits if its residual stream held nothing but the direction (nostalgebraist, "interpreting GPT: the logit
      lens", 2020). Without the centroid, which lies among the embeddings;
    - ``jacobian_lens``: entry ``t`` of ``W_U · norm(J · scale · g)``, ``J`` the average Jacobian from the SAE's hook to
      the last residual over running text (``model.jacobian_lens``; Gurnee et al. 2026), so that decoder weights are
      read as what the feature writes into the stream there;
    - ``activation``: the SAE's activation of the feature on the token alone, behind what stands before a text.

    ``negative`` lists the same from the other end. A word, for ``words``, is what ``model.subject.is_word`` says.
    """

    exponent: Annotated[float, Field(gt=0, le=100, description=(
        "of score: trades closeness to the vector (large) against distance from the centroid (small)"
    ))] = 1.4
    top: Annotated[Whole, Field(ge=1, le=10_000, description="how many tokens")] = 100
    measure: Annotated[Measure, Field(description=(
        "what orders them: " + "; ".join(f"{name}: {what}" for name, what in MEASURES.items())
    ))] = "score"
    negative: Annotated[bool, Field(
        description="the least similar tokens: the list from its other end (not by activation)"
    )] = False
    words: Annotated[bool, Field(description=(
        "only tokens that are words: a space and letters, or letters of a script written without spaces"
    ))] = False

    def __post_init__(self):
        super().__post_init__()
        if self.negative and self.measure == "activation":
            raise UserError(
                "negative is true and measure is 'activation', which has no other end: on most tokens the feature does "
                "not fire at all. Choose another measure, or leave negative out."
            )

    def needs_activations(self, *, evidence: bool) -> bool:
        """Whether the list, or its evidence, takes how strongly each token fires the feature: a vocabulary scan."""
        return self.measure == "activation" or (evidence and not self.by_lens)

    @property
    def by_lens(self) -> bool:
        """Whether it lists what the direction makes the model say. Its evidence is what the feature writes."""
        return self.measure in LENSES


def recipes(settings: dict) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipe in the settings of a definition tree.

    Raises:
        UserError: they lack something, or a value cannot be.
    """
    vector, tree = (
        {field.name: settings[field.name] for field in recipe_fields(kind) if field.name in settings}
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
    return check(value, "cutoff", Cutoff)


def _feature(text: str) -> int | str:
    """A feature's number, or a weighted list in its one spelling."""
    return int(text) if re.fullmatch(r"\s*-?[0-9]{1,15}\s*", text) else features_written(feature_terms(text))
