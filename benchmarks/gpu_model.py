"""A model of Gemma-2B's shape with random weights in bfloat16, and trees of it: what ``gpu`` measures on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GemmaConfig

from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.passes import Continuations
from multitool.trees.growth import Growth, grow

_SHAPE = {
    "vocab_size": 256_000, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
}  # fmt: skip
_TINY = {
    "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
CUTOFF = 1e-300  # as good as none: the number of nodes is what ends the growth


@dataclass(frozen=True)
class Setting:
    """What is measured on: the card and the real shape; or, to try the code, the processor and a tiny one."""

    repeats: int
    smoke: bool

    @property
    def device(self) -> str:
        return "cpu" if self.smoke else "cuda"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of trees, in nodes."""
        return (5, 8, 10, 20) if self.smoke else (500, 900, 2000, 5000)

    @property
    def levels(self) -> int:
        """About how many the largest tree has, and the most that any may have."""
        return 6 if self.smoke else 25

    @cached_property
    def model(self):
        """The same one every time on the same device."""
        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(
                GemmaConfig(**(_TINY if self.smoke else _SHAPE)), dtype=torch.bfloat16
            )
        return model.eval().requires_grad_(False)

    @cached_property
    def factor(self) -> float:
        """That with which the final norm is sharpened, see ``_sharpened``; asked for, it is so from then on."""
        return _sharpened(self.model, self.levels, self.sizes[-1])

    def synchronised(self, run: Callable[[], object]) -> None:
        """Run it to its end: what was started on a card goes on after the call."""
        run()
        if self.device == "cuda":
            torch.cuda.synchronize()


def _sharpened(model, levels: int, size: int) -> float:
    """Make the model's logits so far apart that its ``size`` most probable nodes reach about so many levels.

    Random weights make all next tokens nearly as probable, and the last token more so than others, since input and
    output embeddings are one matrix. Random signs in the final norm end the latter, a factor there the former.
    Returns the factor: found by doubling, then by bisection.
    """
    weight = model.get_decoder().norm.weight
    signs = torch.randint(0, 2, weight.shape, generator=torch.Generator().manual_seed(1)).to(weight) * 2 - 1

    def deep_enough(factor: float) -> bool:
        weight.copy_(factor * signs - 1)  # Gemma's norm multiplies by 1 + weight
        tree = grown(model, levels, size).tree
        # A tree that is smaller has next tokens whose probability is rounded to 0: sharper still.
        return len(tree) < size or int(tree.depth.max()) >= levels - 1

    low, high = 0.0, 1.0
    while not deep_enough(high):
        low, high = high, 2 * high
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if deep_enough(middle) else (middle, high)
    deep_enough(high)
    return high


def prompt(model) -> GhostPrompt:
    """Twelve random tokens, the sixth the ghost's."""
    n_tokens = len(model.get_input_embeddings().weight)
    token_ids = np.random.default_rng(0).choice(n_tokens, 12, replace=False)
    return GhostPrompt(tuple(token_ids.tolist()), position=5)


def grown(model, levels: int, size: int) -> Growth:
    """A whole tree of so many nodes."""
    v = model.get_input_embeddings().weight[7].float().cpu()
    source = Continuations(model, prompt(model), v, 5, levels)
    for growth in grow(source, cutoff=CUTOFF, max_depth=levels, max_nodes=size):  # noqa: B007
        pass
    return growth
