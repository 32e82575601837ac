"""Run an app as on ZeroGPU, on a machine without a GPU: ``python run_app.py APP.py``.

``spaces`` runs in its forked mode, with all that is its own: arguments and results are pickled, workers forked and
reused, tensors packed to disk at launch. Only the GPU is missing. In the main process ``spaces`` itself emulates one,
with tensors that say "cuda:0" and lie in the CPU's memory; here its emulation goes on in the workers, where on ZeroGPU
the GPU takes over. So in a worker tensors of the two devices do not mix, and a model may be loaded and moved to "cuda";
in the threads of the main process that handle requests, packed tensors hold zeros, as on ZeroGPU.

What stays unlike ZeroGPU: memory figures and the device's name are those that ``spaces`` makes up, and results have
the CPU's rounding. The process needs the environment that ``running.start_app`` gives it.
"""

import os
import runpy
import signal
import sys
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from pickle import PicklingError

import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.overrides import TorchFunctionMode

GPU = "NVIDIA RTX PRO 6000 Blackwell Server Edition"  # spaces puts a factor on the declared duration there


def prepare() -> None:
    """Make ``spaces`` work with a PyTorch that has no CUDA; before the app imports anything."""
    torch.version.cuda = torch.version.cuda or "12.8"
    torch._C._cuda_init = lambda: None
    torch.cuda._is_in_bad_fork = bool  # must be picklable, and answer False
    os.O_DIRECT = 0  # not every file system that tests run on has it

    import spaces  # noqa: F401
    from spaces.zero import config
    from spaces.zero import torch as zero_torch

    config._read_gpu_information = lambda: f"Model: {GPU}"
    config.get_config.cache_clear()
    zero_torch.unpatch = lambda: None
    zero_torch.init = _start_gpu
    zero_torch.move = _move_to_gpu


def _start_gpu(nvidia_uuid: str) -> None:
    """In a worker, in the place of CUDA's start: all threads from here on see the emulated GPU."""
    from spaces.zero.torch import patching

    os.environ["CUDA_VISIBLE_DEVICES"] = nvidia_uuid
    patching.empty_like_raw_alloc = torch.empty_like  # faster; the slow one saves memory where processes fork
    for kind in (torch.Tensor, torch.nn.Parameter):
        ForkingPickler.register(kind, _reduce)
    plain_run = threading.Thread.run

    def run(thread):
        with patching.function_mode, _Strict():
            plain_run(thread)

    threading.Thread.run = run


def _move_to_gpu(callback=None) -> None:
    """In a worker, in the place of the copy to the GPU: the packed tensors get their numbers back."""
    from spaces.zero.torch import patching

    for pack in patching.tensor_packs:
        with Path(pack.path()).open("rb") as file:
            for tensor, size, padded_size in [*sum(pack.batches, []), *pack.big_tensors]:
                content = torch.frombuffer(bytearray(file.read(padded_size)), dtype=torch.uint8)[:size].clone()
                original = torch.empty(0, dtype=tensor.dtype)
                original.set_(content.untyped_storage(), 0, tensor.shape, tensor.stride())
                for fake in pack.fakes[tensor]:
                    patching.cuda_aliases[fake] = original


class _Strict(TorchFunctionMode):
    """What CUDA tensors do and the emulation does not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if args and _on_gpu(args[0]):
            if func == torch.Tensor.is_cuda.__get__:
                return True
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return func(*args, **(kwargs or {}))


def _reduce(tensor: torch.Tensor):
    """On ZeroGPU the main process hangs when it gets a CUDA tensor."""
    if _on_gpu(tensor):
        raise PicklingError("a CUDA tensor must not leave the worker")
    return reduce_tensor(tensor)


def _on_gpu(value) -> bool:
    from spaces.zero.torch.patching import cuda_aliases

    return isinstance(value, torch.Tensor) and value in cuda_aliases


if __name__ == "__main__":
    # SIGTERM ends the app as Ctrl-C does, with its workers; Ctrl-C itself may be ignored where tests run.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare()
    app = Path(sys.argv[1]).resolve()
    sys.argv = [str(app)]
    sys.path[0] = str(app.parent)
    runpy.run_path(str(app), run_name="__main__")
