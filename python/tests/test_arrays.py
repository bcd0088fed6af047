"""Arrays of other libraries as pointers, and what happens without a CUDA device."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import bough
from bough._dlpack import view
from bough._library import library


def test_a_view_is_the_array():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2]
    at = view(x, "x")
    assert (at.shape, at.strides, at.dtype, at.device) == ((2, 2, 4), (12, 8, 1), "float32", "cpu")
    assert at.pointer == x.ctypes.data


def test_a_view_keeps_its_memory():
    import ctypes

    at = view(np.full(1 << 16, 7, np.int32), "x")
    gc.collect()
    others = [np.zeros(1 << 16, np.int32) for _ in range(8)]
    assert ctypes.cast(at.pointer, ctypes.POINTER(ctypes.c_int32))[12345] == 7
    del others


def test_what_is_no_array_is_refused():
    with pytest.raises(bough.BoughError, match="q is a list, it must be an array with __dlpack__"):
        view([1, 2], "q")
    with pytest.raises(bough.BoughError, match="x has elements of DLPack type 5 with 128 bits"):
        view(np.zeros(3, np.complex128), "x")


def test_paged_attention_needs_cuda():
    if library().bough_attention_has_cuda():
        pytest.skip("the library has CUDA kernels")
    with pytest.raises(bough.BoughError, match="no CUDA") as error:
        bough.PagedAttention(
            heads=2, kv_heads=1, head_dim=64, trained_context=4096, max_rows=1, max_sequences=1, max_length=1
        )
    assert error.value.code == "unsupported"


def test_torch_on_the_cpu():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    make = np.random.default_rng(3)
    q, k, v = (make.standard_normal((2, 2, n, 64), np.float32) for n in (5, 50, 50))
    expected, sums = bough.attention(q, k, v, rope_theta=1e4, return_lse=True)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    o, lse = bough.attention(*tensors, rope_theta=1e4, return_lse=True)
    assert torch.equal(o, torch.from_numpy(expected)) and torch.equal(lse, torch.from_numpy(sums))
    compiled = torch.compile(lambda q, k, v: bough.attention(q, k, v, rope_theta=1e4), fullgraph=True, backend="eager")
    assert torch.equal(compiled(*tensors), o)
    halves = bough.attention(*(x.bfloat16() for x in tensors), rope_theta=1e4)
    assert halves.dtype == torch.bfloat16 and float((halves.float() - o).abs().max()) < 0.05
    torch.library.opcheck(
        torch.ops.bough.attention.default,
        (*tensors, "default", 0, [], "halves", 1.0, 0.0, 0.0, 0, False, 131072),
        test_utils=("test_schema", "test_faketensor"),
    )
