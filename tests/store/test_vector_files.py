"""Vectors from files: numpy arrays and safetensors, and everything else refused in a sentence."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from multitool.errors import UserError
from multitool.store.vector_files import MOST_BYTES, read_vector

ROW = [1.0, -0.5, 2.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_a_numpy_array(tmp_path, dtype, shape):
    np.save(tmp_path / "probe.npy", np.array([1, -5, 2]).astype(dtype).reshape(shape))
    assert read_vector(tmp_path / "probe.npy") == ([1.0, -5.0, 2.0], "probe")
    assert read_vector(tmp_path / "probe.npy", "sentiment") == ([1.0, -5.0, 2.0], "sentiment")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor(tmp_path, dtype):
    save_file({"love": torch.tensor(ROW, dtype=dtype)}, tmp_path / "a.safetensors")
    assert read_vector(tmp_path / "a.safetensors") == (ROW, "love")
    assert read_vector(tmp_path / "a.safetensors", "a name of mine") == (ROW, "a name of mine")


def test_one_of_several_tensors_is_named(tmp_path):
    file = tmp_path / "several.safetensors"
    save_file({"love": torch.tensor(ROW), "hate": -torch.tensor(ROW)}, file)
    assert read_vector(file, "hate") == ([-1.0, 0.5, -2.0], "hate")
    with pytest.raises(UserError, match="several.safetensors has 2 tensors, and it does not say which.*'hate', 'love'"):
        read_vector(file)
    with pytest.raises(UserError, match="none is called 'fear'"):
        read_vector(file, "fear")


def test_what_is_no_vector_is_refused(tmp_path):
    def refused(name: str, said: str):
        with pytest.raises(UserError, match=said):
            read_vector(tmp_path / name)

    refused("none.npy", "'none.npy' cannot be read")
    refused("a.pt", r"'a.pt' ends in none of \.npy, \.safetensors")
    np.save(tmp_path / "matrix.npy", np.ones((2, 3)))
    refused("matrix.npy", r"holds numbers of the shape \(2, 3\); it must be one row")
    np.save(tmp_path / "texts.npy", np.array(["a"]))
    refused("texts.npy", "holds <U1, and must hold numbers")
    np.save(tmp_path / "objects.npy", np.array([{"run": "me"}]), allow_pickle=True)
    refused("objects.npy", "no numpy array that is read here")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "matrix.npy").read_bytes()[:-8])
    refused("cut.npy", "no numpy array that is read here")
    (tmp_path / "nothing.npy").write_bytes(b"")
    refused("nothing.npy", "no numpy array that is read here")
    (tmp_path / "other.safetensors").write_bytes(b"no tensors")
    refused("other.safetensors", "cannot be read as safetensors")
    save_file({"n": torch.ones(3, dtype=torch.int64)}, tmp_path / "whole.safetensors")
    refused("whole.safetensors", "must hold floating-point numbers")
    (tmp_path / "large.npy").write_bytes(b"\0" * (MOST_BYTES + 1))
    refused("large.npy", "at most .* of such a file are read")
