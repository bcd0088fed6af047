"""What PagedAttention's calls make of the caller's caches, on arrays that only say that they are on a device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import bough
from bough._config import Config
from bough._paged_cache import cache_of

CONFIG = Config(plan="default", layer=0, heads=4, kv_heads=2, head_dim=64, page_tokens=16)


class Array:
    """A tensor's fields."""

    def __init__(self, *shape, dtype="bfloat16", pointer=4096, device="cuda", strides=None):
        compact = [1]
        for n in reversed(shape[1:]):
            compact.insert(0, compact[0] * n)
        self.shape, self.strides, self.dtype, self.pointer = shape, strides or compact, f"torch.{dtype}", pointer
        self.device = SimpleNamespace(type=device, index=0)

    def untyped_storage(self):
        raise NotImplementedError

    def data_ptr(self):
        return self.pointer

    def stride(self):
        return self.strides


TABLE = Array(3, 5, dtype="int32")


def struct(summary, k=Array(9, 16, 2, 64), table=TABLE, config=CONFIG, **scales):
    return cache_of(config, k, k, table, scales.get("k_scale"), scales.get("v_scale"), summary)[0]


def test_without_a_summary():
    cache = struct(None)
    assert cache.summary.data is None and cache.summary_step == 0
    assert (cache.k.page_stride, cache.k.token_stride, cache.k.head_stride, cache.table_stride) == (2048, 128, 64, 5)


def test_a_summary_in_pages():
    cache = struct(bough.KeySummary(Array(9, 4, 2, 64, pointer=8192), 4))
    plane = cache.summary
    assert (plane.data, cache.summary_step, plane.sequence_stride, plane.scale) == (8192, 4, 0, None)
    assert (plane.page_stride, plane.token_stride, plane.head_stride) == (512, 128, 64)
    heads_first = Array(9, 4, 2, 64, strides=[512, 64, 256, 1])
    plane = struct(bough.KeySummary(heads_first, 4)).summary
    assert (plane.page_stride, plane.token_stride, plane.head_stride) == (512, 64, 256)


def test_a_summary_beside_texts_side_by_side():
    cache = struct(bough.KeySummary(Array(3, 13, 2, 64), 8), Array(3, 100, 2, 64), None)
    plane = cache.summary
    assert (plane.sequence_stride, plane.page_stride, plane.token_stride) == (13 * 128, 2 * 128, 128)


def test_scales_of_a_summary():
    config = Config("default", 0, 4, 2, 64, kv_dtype="float8_e4m3fn", page_tokens=16)
    keys, scale = Array(9, 1, 2, 64, dtype="float8_e4m3fn"), Array(9, 1, 2, dtype="float32", strides=[2, 0, 1])
    k, k_scale = Array(9, 16, 2, 64, dtype="float8_e4m3fn"), Array(9, 16, 2, dtype="float32")
    plane = struct(bough.KeySummary(keys, 16, scale), k, config=config, k_scale=k_scale).summary
    assert plane.scale == 4096 and plane.scale_page_stride == 2 and plane.scale_head_stride == 1
    assert plane.scale_token_stride > 0  # 0 would say that scales do not differ by token
    with pytest.raises(bough.BoughError, match=r"summary.scale has shape \[9, 16, 2\], it must be \[9, 1, 2\]"):
        struct(bough.KeySummary(keys, 16, k_scale), k, config=config, k_scale=k_scale)
    with pytest.raises(bough.BoughError, match="summary.scale has elements of type bfloat16"):
        struct(bough.KeySummary(keys, 16, Array(9, 1, 2)), k, config=config, k_scale=k_scale)


@pytest.mark.parametrize("step", [0, -4, 1, 12, 2048])
def test_a_step_is_a_power_of_two(step):
    with pytest.raises(bough.BoughError, match=f"summary.step is {step}, it must be a power of two from 2 to 1024"):
        bough.KeySummary(Array(9, 4, 2, 64), step)


def test_a_summary_that_is_not_the_caches():
    with pytest.raises(bough.BoughError, match="summary.step is 32, it must be at most page_tokens, 16"):
        struct(bough.KeySummary(Array(9, 1, 2, 64), 32))
    with pytest.raises(
        bough.BoughError, match=r"summary.keys has shape \[9, 2, 2, 64\], it must be \[pages, 4, 2, 64\]"
    ):
        struct(bough.KeySummary(Array(9, 2, 2, 64), 4))
    with pytest.raises(bough.BoughError, match=r"summary.keys has shape \[8, 4, 2, 64\], it must be \[9, 4, 2, 64\]"):
        struct(bough.KeySummary(Array(8, 4, 2, 64), 4))
    with pytest.raises(bough.BoughError, match=r"summary.keys has shape \[3, 12, 2, 64\], it must be \[3, 13, 2, 64\]"):
        struct(bough.KeySummary(Array(3, 12, 2, 64), 8), Array(3, 100, 2, 64), None)
    with pytest.raises(bough.BoughError, match="summary.keys has elements of type float16"):
        struct(bough.KeySummary(Array(9, 4, 2, 64, dtype="float16"), 4))
    with pytest.raises(bough.BoughError, match="summary.keys is on the cpu device"):
        struct(bough.KeySummary(Array(9, 4, 2, 64, device="cpu"), 4))
    with pytest.raises(bough.BoughError, match="the last stride of summary.keys is 2"):
        struct(bough.KeySummary(Array(9, 4, 2, 64, strides=[512, 128, 64, 2]), 4))
