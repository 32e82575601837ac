"""What one pass over the next token of many paths costs: Python, launches, the card's own work; and what a recorded or
a compiled pass of fixed shape would cost in its place. The tool uses neither; this tells whether it would pay."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache

from benchmarks.gpu_model import Setting
from benchmarks.measuring import Row, ratios, side_by_side, timed
from multitool.model.kv_cache import GatheredLayer


class FixedPass:
    """A pass over one more token of ``n_paths`` paths of ``length`` tokens, always over the same memory.

    As a level's pass is: each layer gathers its keys and values from those of all tokens held, by the paths' places.
    """

    def __init__(self, model, n_paths: int, length: int):
        weight, config = model.get_input_embeddings().weight, model.config
        self._model, self._length = model, length
        self.embeddings = model.get_input_embeddings()(torch.arange(n_paths, device=weight.device)[:, None] + 5)
        self._position = torch.full((1, 1), length, device=weight.device)
        held = (n_paths * 2, config.num_key_value_heads, config.head_dim)  # about as many tokens as a tree has
        self._kept = [(weight.new_empty(held).normal_(), weight.new_empty(held).normal_())
                      for _ in range(config.num_hidden_layers)]
        self._places = torch.randint(0, held[0], (n_paths, length + 1), device=weight.device)

    def __call__(self) -> torch.Tensor:
        """The logits, (n_paths, V)."""
        cache = DynamicCache(config=self._model.config)
        cache.layers = [GatheredLayer(partial(self._gathered, kept), self._length) for kept in self._kept]
        output = self._model(
            inputs_embeds=self.embeddings, position_ids=self._position, cache=cache, use_cache=True
        )
        return output.logits[:, -1]

    def _gathered(self, kept: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (
            states.index_select(0, self._places.flatten()).view(*self._places.shape, *states.shape[1:])
            for states in kept
        )
        return keys, values


def _passes(setting: Setting) -> Iterator[tuple[int, FixedPass]]:
    length = 6 if setting.smoke else 24
    for n_paths in (1, 4) if setting.smoke else (1, 64, 512, 2048):
        yield n_paths, FixedPass(setting.model, n_paths, length)


@torch.inference_mode()
def launches(setting: Setting) -> Iterator[Row]:
    """The whole pass, the time until Python has asked for all of it, and that of the card's kernels alone."""
    for n_paths, run in _passes(setting):
        kernels, n_launches = _kernel_seconds(setting, run)
        whole = timed(partial(setting.synchronised, run), at_least=0.0 if setting.smoke else 0.2)
        found = side_by_side(setting.repeats, {"pass": whole, "asked for": _asked(setting, run)})
        yield Row(f"a pass over {n_paths} paths", found | {"kernels": [kernels] * setting.repeats},
                  ratio=[kernels / s for s in found["pass"]], facts={"paths": n_paths, "launches": n_launches})


def _asked(setting: Setting, run: Callable[[], object]) -> Callable[[], float]:
    """Seconds until the call returns, on a card that has nothing else to do."""

    def seconds() -> float:
        setting.synchronised(lambda: None)
        found = timed(run)()
        setting.synchronised(lambda: None)
        return found

    return seconds


def _kernel_seconds(setting: Setting, run: Callable[[], object]) -> tuple[float, int]:
    """How long the card's kernels (without a card: the operations) take together, and how many there are."""
    setting.synchronised(run)
    card = [] if setting.smoke else [ProfilerActivity.CUDA]
    with profile(activities=[ProfilerActivity.CPU, *card]) as profiled:
        setting.synchronised(run)
    events = profiled.key_averages()
    if setting.smoke:
        return sum(e.self_cpu_time_total for e in events) / 1e6, sum(e.count for e in events)
    of_card = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(e.self_device_time_total for e in of_card) / 1e6, sum(e.count for e in of_card)


@torch.inference_mode()
def graph(setting: Setting) -> Iterator[Row]:
    """A pass recorded as a CUDA graph, against the pass as it is."""
    for n_paths, run in _passes(setting):
        yield _compared(setting, f"a pass over {n_paths} paths, recorded", run, _recorded(setting, run), n_paths)


def _recorded(setting: Setting, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    if setting.smoke:
        return run  # there is nothing to record it on
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        logits = run()

    def replay() -> torch.Tensor:
        recorded.replay()
        return logits

    return replay


@torch.inference_mode()
def compiled(setting: Setting) -> Iterator[Row]:
    """A pass by ``torch.compile``, against the pass as it is. The compiler takes its time before; it is told."""
    if setting.smoke:
        return  # no compiler is needed to run this tool
    for n_paths, run in _passes(setting):
        if n_paths != 64:
            continue
        faster = torch.compile(run, mode="reduce-overhead")
        seconds = timed(partial(setting.synchronised, faster))()
        row = _compared(setting, f"a pass over {n_paths} paths, compiled", run, faster, n_paths)
        yield Row(row.what, row.measured, ratio=row.ratio, facts=row.facts | {"compiling": seconds})


def _compared(
    setting: Setting, what: str, run: Callable[[], torch.Tensor], other: Callable[[], torch.Tensor], n_paths: int
) -> Row:
    difference = float((run() - other()).abs().max())
    at_least = 0.0 if setting.smoke else 0.2
    found = side_by_side(setting.repeats, {
        "as it is": timed(partial(setting.synchronised, run), at_least=at_least),
        "instead": timed(partial(setting.synchronised, other), at_least=at_least),
    })
    return Row(what, found, ratio=ratios(found, "as it is", "instead"),
               facts={"paths": n_paths, "largest_difference": difference})
