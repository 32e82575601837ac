"""A small ZeroGPU app that does what can go wrong there, to test the harness with."""

import spaces  # isort: skip  (before torch, as on ZeroGPU)

import os
import sys
import time

import gradio as gr
import torch

NUMBERS = torch.tensor([1.0, 2.0, 3.0, 4.0]).to("cuda")
LATE = {}  # what calls have left behind in their process


def _seconds(steps: int, pause: float, fault: str, seconds: int) -> int:
    return seconds


@spaces.GPU(duration=_seconds)
def _count(steps: int, pause: float, fault: str, seconds: int):
    """Yields ``steps`` times; the fault, if any, comes after the first."""
    LATE.setdefault("weights", torch.full((4,), 10.0).to("cuda"))
    LATE["calls"] = LATE.get("calls", 0) + 1
    step = 0
    try:
        while step < steps:
            yield {
                "step": step,
                "pid": os.getpid(),
                "calls": LATE["calls"],
                "device": str(NUMBERS.device),
                "is_cuda": NUMBERS.is_cuda,
                "product": float(NUMBERS @ LATE["weights"]),
            }
            step += 1
            time.sleep(pause)
            match fault:
                case "told":
                    raise gr.Error("what went wrong", title="Told")
                case "untold":
                    raise ValueError("what went wrong")
                case "devices mixed":
                    yield (NUMBERS + torch.ones(4)).tolist()
                case "numpy":
                    yield NUMBERS.numpy().tolist()
                case "GPU tensor":
                    yield NUMBERS
    finally:
        sys.stdout.write(f"left at step {step} of {steps}\n")
        sys.stdout.flush()


def count(steps: int = 3, pause: float = 0.02, fault: str = "", seconds: int = 20) -> dict:
    """Count on the GPU."""
    yield from _count(steps, pause, fault, seconds)


def outside() -> dict:
    """The mistake of using the GPU's tensors without the GPU."""
    return {"pid": os.getpid(), "numbers": NUMBERS.tolist(), "device": str(NUMBERS.device)}


if __name__ == "__main__":
    with gr.Blocks() as page:
        gr.api(count, api_name="count", concurrency_limit=4)
        gr.api(outside, api_name="outside")
    page.queue(max_size=16).launch()
