"""Where models run on GPUs that there are none of here: what PyTorch tells of them is made by hand."""

from types import SimpleNamespace

import pytest
import torch
from tiny import byte_level_tokenizer, tiny_model, write_model

from multitool.errors import UserError
from multitool.store.devices import ZERO_GPU_MEMORY, Gpu, Placement, gpu_here, placement, suited_precision
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.models import load_model, model_size

# As torch.cuda.get_arch_list() has them, of builds for CUDA 12.6 and 13.
CUDA_12 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
P100, V100, T4, A10, H100, RTX_5090 = (6, 0), (7, 0), (7, 5), (8, 6), (9, 0), (12, 0)
T4_BYTES = 15_800_000_000


@pytest.fixture
def model_folder(tmp_path):
    return write_model(tmp_path / "tiny-llama", tiny_model("llama"), byte_level_tokenizer())


def gpu(capability, compiled=CUDA_13, **more) -> Gpu:
    return Gpu("NVIDIA Test", capability, compiled, **more)


@pytest.mark.parametrize(
    ("capability", "compiled", "usable"),
    [
        (P100, CUDA_12, True), (P100, CUDA_13, False), (V100, CUDA_13, False), (T4, CUDA_13, True),
        (A10, CUDA_13, True), (H100, CUDA_13, True), (RTX_5090, CUDA_13, True), (RTX_5090, CUDA_12, False),
        ((8, 9), CUDA_12, True),  # of the generation of sm_86
        ((6, 1), ("sm_61",), True), ((6, 0), ("sm_61",), False),
        ((12, 1), CUDA_13, True), ((13, 0), CUDA_13, True), ((13, 0), ("sm_120",), False),  # compiled when it is loaded
        ((10, 0), ("sm_100a",), True), ((10, 3), ("sm_100a",), False), ((10, 3), ("sm_100f",), True),
        (P100, (), True),  # not told: no reason to refuse it
        (P100, ("gfx90a", "nonsense"), False),
    ],
)  # fmt: skip
def test_which_gpus_the_installed_pytorch_has_code_for(capability, compiled, usable):
    assert gpu(capability, compiled).usable == usable


def test_a_gpu_without_code_gives_way_to_the_processor_and_the_note_says_why():
    there = placement("auto", None, gpu(V100))
    assert (there.device, there.dtype) == ("cpu", "float32")
    note, = there.notes
    assert all(part in note for part in ("NVIDIA Test", "compute capability 7.0", "sm_75", torch.__version__)), note
    with pytest.raises(UserError, match="device is 'cuda'.*no code for NVIDIA Test.*Use cpu or auto"):
        placement("cuda", None, gpu(V100))


def test_a_gpu_without_bfloat16_of_its_own_leaves_the_precision_to_the_model_unless_told_otherwise():
    there = placement("auto", None, gpu(T4, memory=T4_BYTES))
    assert (there.device, there.dtype, there.memory) == ("cuda", None, T4_BYTES)
    assert "no bfloat16 of its own" in there.notes[0] and "SAE_MULTITOOL_DTYPE" in there.notes[0]
    for dtype in ("float16", "bfloat16", "float32"):
        assert placement("auto", dtype, gpu(T4)) == Placement("cuda", dtype)


@pytest.mark.parametrize(
    ("model_type", "n_weights", "dtype"),
    [
        ("gemma", 2_506_172_416, "float32"),  # Gemma-2B: 10.0 GB of 15.8
        ("gemma", 8_537_680_896, "float16"),
        ("gemma2", 2_614_341_888, "float32"), ("gemma2", 9_241_705_984, "bfloat16"),
        ("gemma3_text", 268_098_176, "float32"), ("gemma3_text", 3_880_099_328, "bfloat16"),
        ("llama", 8_030_261_248, "float16"), ("qwen2", 7_615_616_512, "bfloat16"),
        ("gpt2", 2_962_500_000, "float32"), ("gpt2", 2_962_500_001, "float16"),  # three quarters of its memory
    ],
)  # fmt: skip
def test_there_a_model_runs_in_float32_where_it_fits_and_in_float16_only_where_its_numbers_fit(
    model_type, n_weights, dtype
):
    assert suited_precision(model_type, n_weights, T4_BYTES) == dtype


def test_the_library_tells_and_loads_a_model_in_the_precision_that_suits_it_there(model_folder):
    name = str(model_folder)
    n_weights = sum(weight.numel() for weight in load_model(name, model_folder, "float32", "cpu").parameters())
    assert model_size(name, model_folder) == ("llama", n_weights)
    large, small = (Library(gpu=lambda n=n: gpu(T4, memory=n)) for n in (8 * n_weights, 4 * n_weights))
    assert (large.precision(name), small.precision(name)) == ("float32", "float16")
    assert small.options["dtype"] is None
    asked = Library(dtype="bfloat16", gpu=lambda: gpu(T4, memory=8 * n_weights))
    assert asked.precision(name) == asked.options["dtype"] == "bfloat16"
    subject = small.subject(name)
    small.device = "cpu"  # there is no GPU here to load it on
    assert small.run(name, model_folder).dtype == torch.float16
    entry = SaeEntry("a", "b", name, "resid_post", 0)
    tasks = small.scan_task(entry, subject), small.lens_task(entry, subject), small.prose_task(entry, subject)
    assert {task.dtype for task in (*tasks, small.pullback_task(entry, subject))} == {"float16"}


@pytest.mark.parametrize("capability", [A10, H100, RTX_5090])
def test_others_compute_in_bfloat16_without_a_word(capability):
    assert placement("auto", None, gpu(capability)) == placement("cuda", None, gpu(capability))
    assert placement("auto", None, gpu(capability)) == Placement("cuda", "bfloat16")


def test_a_gpu_that_cannot_be_reached_gives_way_too():
    def out_of_reach():
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    here = gpu_here({}, SimpleNamespace(is_available=lambda: True, get_device_name=out_of_reach))
    there = placement("auto", None, here)
    assert there.device == "cpu" and "cannot reach the GPU: CUDA error: all CUDA-capable" in there.notes[0]
    with pytest.raises(UserError, match="devices are busy"):
        placement("cuda", None, here)


def test_what_pytorch_says_of_a_gpu_is_taken_as_it_is():
    cuda = SimpleNamespace(
        is_available=lambda: True, get_device_name=lambda: "Tesla T4", get_device_capability=lambda: (7, 5),
        get_arch_list=lambda: list(CUDA_13), get_device_properties=lambda: SimpleNamespace(total_memory=T4_BYTES),
    )
    assert gpu_here({}, cuda) == Gpu("Tesla T4", (7, 5), CUDA_13, memory=T4_BYTES)
    assert gpu_here({}, SimpleNamespace(is_available=lambda: False)) is None


def test_on_zerogpu_no_gpu_is_asked_for_before_one_is_lent():
    here = gpu_here({"SPACES_ZERO_GPU": "true"}, SimpleNamespace(is_available=lambda: True))
    assert placement("auto", None, here) == Placement("cuda", "bfloat16", memory=ZERO_GPU_MEMORY)


def test_on_apples_gpus_models_run_on_the_processor_and_the_note_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    library = Library()
    assert (library.device, library.precision("any/model")) == ("cpu", "float32")
    assert library.notes == ("Apple's GPU is not used: models run on the processor (--device cpu: without this note).",)
    assert library.notes[0] in caplog.text
    assert Library(device="cpu").notes == ()


def test_the_library_runs_where_the_placement_says_and_tells_why(caplog):
    library = Library(gpu=lambda: gpu(V100))
    assert (library.device, library.precision("any/model")) == ("cpu", "float32")
    assert library.notes[0] in caplog.text
    assert Library(gpu=lambda: gpu(A10)).notes == ()
