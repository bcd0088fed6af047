"""The caches that PagedAttention's calls get, as the library's structs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Sequence

from ._checks import check_last, check_type, ints, put_scale, steps
from ._config import Config
from ._dlpack import View, view
from ._library import BoughError, Cache, Plane


@dataclass(frozen=True)
class KeySummary:
    """A thinner plane of a cache's keys. Where PagedAttention.mean_keys is n > 0, the means of n keys, which the plan's stages score and
    without which it does not search. Otherwise every `step`-th key once more, for the rounds of the scans that look at no others: those
    over pieces of 4 * step tokens or more read nothing of k_cache.

    keys   [pages, page_tokens / step, kv_heads, head_dim] in the pages of `page_table`, without one
           [sequences, tokens / step rounded up, kv_heads, head_dim]; any strides but the last; of the cache's type, means of q's
    step   a power of two from 4 to 64, at most page_tokens and a quarter of the plan's first chunk; of means n
    scale  float32, the first three dimensions of keys, where k_scale has one for each token and head; otherwise, and of means, None

    `write` fills it with the keys; the layer's plan must have stages. Raises BoughError.
    """

    keys: Any
    step: int
    scale: Any = None

    def __post_init__(self) -> None:
        if self.step < 2 or self.step > 1024 or self.step & (self.step - 1) != 0:
            raise BoughError(f"summary.step is {self.step}, it must be a power of two from 2 to 1024")


def cache_of(
    config: Config,
    k: Any,
    v: Any,
    table: Any,
    k_scale: Any,
    v_scale: Any,
    summary: Optional[KeySummary],
    mean_keys: int = 0,
) -> tuple[Cache, list[View]]:
    """The struct and the views that keep its memory; the summary of a plan whose stages score the means of mean_keys > 0 keys holds
    those. Raises BoughError."""
    keep: list[View] = []
    cache = Cache()
    paged = table is not None
    for name, array, scale in (("k", k, k_scale), ("v", v, v_scale)):
        at = view(array, f"{name}_cache")
        keep.append(at)
        setattr(cache, name, _plane(config, at, f"{name}_cache", paged, 1, config.kv_dtype))
        if scale is not None:
            keep.append(view(scale, f"{name}_scale"))
            if put_scale(getattr(cache, name), keep[-1], f"{name}_scale", at.shape[:3]):
                _stride_scale(getattr(cache, name), keep[-1].strides, config.page_tokens, paged)
    if summary is not None:
        dtype = config.dtype if mean_keys > 0 else config.kv_dtype
        keep += _put_summary(config, cache, summary, keep[0].shape, paged, dtype)
    if paged:
        at = ints(table, "page_table", None, dims=2)
        cache.page_table, cache.table_stride = at.pointer, at.strides[0]
        keep.append(at)
    return cache, keep


def _plane(config: Config, at: View, name: str, paged: bool, step: int, dtype: str) -> Plane:
    """Of every step-th token."""
    check_type(at, name, dtype, "cuda")
    rows = config.page_tokens // step
    right = len(at.shape) == 4 and at.shape[2:] == (config.kv_heads, config.head_dim)
    if not right or (paged and at.shape[1] != rows):
        first, second = ("pages", str(rows)) if paged else ("sequences", "tokens")
        shape = f"[{first}, {second}, {config.kv_heads}, {config.head_dim}]"
        raise BoughError(f"{name} has shape {list(at.shape)}, it must be {shape}")
    check_last(at, name)
    stride = steps(at)
    plane = Plane(data=at.pointer, token_stride=stride[1], head_stride=stride[2])
    plane.sequence_stride = 0 if paged else stride[0]
    plane.page_stride = stride[0] if paged else rows * stride[1]
    return plane


def _stride_scale(plane: Plane, strides: Sequence[int], rows: int, paged: bool) -> None:
    plane.scale_sequence_stride = 0 if paged else strides[0]
    plane.scale_page_stride = strides[0] if paged else rows * strides[1]
    plane.scale_token_stride, plane.scale_head_stride = strides[1], strides[2]


def _put_summary(
    config: Config, cache: Cache, summary: KeySummary, k: Sequence[int], paged: bool, dtype: str
) -> list[View]:
    """`k`: the shape of k_cache."""
    step = summary.step
    if step > config.page_tokens:
        raise BoughError(f"summary.step is {step}, it must be at most page_tokens, {config.page_tokens}")
    at = view(summary.keys, "summary.keys")
    cache.summary, cache.summary_step = _plane(config, at, "summary.keys", paged, step, dtype), step
    first = (k[0], at.shape[1] if paged else -(-k[1] // step))
    if at.shape[:2] != first:
        raise BoughError(f"summary.keys has shape {list(at.shape)}, it must be {[*first, *at.shape[2:]]}")
    if summary.scale is None:
        return [at]
    scale = view(summary.scale, "summary.scale")
    check_type(scale, "summary.scale", "float32", "cuda")
    if scale.shape != at.shape[:3]:
        raise BoughError(f"summary.scale has shape {list(scale.shape)}, it must be {list(at.shape[:3])}")
    cache.summary.scale = scale.pointer
    strides = [1 if n == 1 else stride for n, stride in zip(scale.shape, scale.strides)]
    _stride_scale(cache.summary, strides, config.page_tokens // step, paged)
    return [at, scale]
