"""Whether SAEs and their models run on a machine."""

from dataclasses import replace

import pytest

from multitool.store import devices
from multitool.store.capacity import Machine, all_that_run, runs_here
from multitool.store.devices import machine_memory
from multitool.store.entries import SaeEntry, model_size, registry_facts
from multitool.store.library import Library
from multitool.store.registry import find_sae, saes

GB = 10**9
GPT2 = find_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre")
GEMMA = find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post")
WIDE = find_sae("gemma-scope-2b-pt-res-canonical/layer_12/width_1m/canonical")
CPU = Machine("cpu", "float32", 16 * GB)


def free(model: str) -> bool:
    return True


def test_of_every_model_the_size_is_known():
    assert {entry.model for entry in saes()} <= registry_facts()["model_sizes"].keys()
    gemma = model_size("google/gemma-2b")
    assert (gemma.parameters, gemma.d_model, gemma.download) == (2_506_000_000, 2048, 5_012_000_000)
    assert model_size("google/gemma-2-9b").download == 37 * GB  # kept in 32 bits
    assert model_size("no/such") is None


@pytest.mark.parametrize(
    ("entry", "machine", "said"),
    [
        (GPT2, CPU, "yes"),
        (GEMMA, CPU, "yes"),  # 10 GB, its SAE of 0.3 GB and 1 GB
        (GEMMA, replace(CPU, memory=11 * GB), "no: 11.3 GB of memory, 11.0 GB here"),
        (WIDE, CPU, "no: 30.8 GB of memory, 16.0 GB here"),  # the SAE alone takes 19 GB
        (GPT2, replace(CPU, memory=None), "not known: how much memory there is, or it takes, is not known"),
        (GEMMA, Machine("cuda", "bfloat16", 16 * GB, 8 * GB), "yes"),
        (GEMMA, Machine("cuda", "bfloat16", 16 * GB, 6 * GB), "no: 6.0 GB of memory on the GPU, 6.0 GB here"),
        (WIDE, Machine("cuda", "bfloat16", 16 * GB, 80 * GB), "no: 20.3 GB of memory, 16.0 GB here"),
        (GEMMA, Machine("cuda", None, 16 * GB, 15 * GB), "yes"),  # in float32
        (GEMMA, Machine("cuda", None, 16 * GB, 12 * GB), "yes"),  # in 16 bits
        (GEMMA, Machine("cuda", "bfloat16", 16 * GB), "not known: how much memory there is, or it takes, is not known"),
        (GEMMA, replace(CPU, max_model_bytes=4 * GB), "no: 5.0 GB to fetch, 4.0 GB allowed"),
        (SaeEntry("r", "i", "no/such", "embed", None), CPU, "not known: the size of its model is not known"),
        (replace(GPT2, d_sae=None), CPU, "not known: how much memory there is, or it takes, is not known"),
    ],
)
def test_what_does_not_fit_does_not_run(entry, machine, said):
    assert str(runs_here(entry, machine, free)) == said


def test_a_gated_model_runs_where_it_may_be_read():
    assert str(runs_here(GEMMA, CPU, lambda model: None)) == "not known: if the token here may read its model"
    assert str(runs_here(GEMMA, CPU, lambda model: False)) == "no: its licence must be accepted, and a token set"
    assert runs_here(GPT2, CPU, lambda model: False).answer is True


def test_without_a_token_a_gated_model_is_known_not_to_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda model, file: None)
    assert [runs.answer for runs in all_that_run([GPT2, GEMMA], CPU)] == [True, False]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_1")
    assert runs_here(GEMMA, CPU).answer is None
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda model, file: str(tmp_path))
    assert runs_here(GEMMA, CPU).answer is True


def test_terms_that_are_not_accepted_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    monkeypatch.delenv("SAE_MULTITOOL_ACCEPT_GEMMA_TERMS", raising=False)
    local = find_sae("demo/gemma-3-270m/hook_embed")
    assert str(runs_here(local, CPU)) == "yes: after its terms"
    assert str(runs_here(find_sae("demo/hook_embed"), CPU)) == "yes"


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    limit, none = tmp_path / "memory.max", tmp_path / "none"
    monkeypatch.setattr(devices, "_CONTAINER_LIMITS", (str(limit), str(none)))
    monkeypatch.setattr(devices.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 10}[name])
    assert machine_memory() == 1000
    limit.write_text("max\n")
    assert machine_memory() == 1000
    limit.write_text("600\n")
    assert machine_memory() == 600


def test_a_library_knows_its_machine():
    machine = Library(device="cpu", max_model_bytes=5).machine
    assert (machine.device, machine.dtype, machine.gpu_memory, machine.max_model_bytes) == ("cpu", "float32", None, 5)
