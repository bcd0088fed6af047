"""attention() on a CUDA device: PagedAttention over contiguous keys and values, kept from call to call."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from ctypes import byref
from typing import Any, Optional

from ._arrays import arrays_of
from ._checks import check_last, check_type, floats, ints, put_scale, steps
from ._config import Config, first_alike
from ._dlpack import View, view
from ._library import Batch, BoughError, Cache, Plane, Rows, call
from .paged import PagedAttention

MOST_KEPT = 16  # shapes and plans whose PagedAttention is kept


class _Kept:
    def __init__(self, attention: PagedAttention) -> None:
        self.attention = attention
        self.workspaces: dict[int, Any] = {}  # by stream


_lock = threading.Lock()
_kept: OrderedDict[Any, _Kept] = OrderedDict()
_fitted: dict[tuple[str, int], str] = {}  # plans as JSON, by the text they were given as and the trained context
_captured: set[Any] = set()  # keys of what graphs refer to; these stay


def clear_cache() -> None:
    """Gives back the tables and workspaces that attention() keeps, but for what was captured in a CUDA graph."""
    with _lock:
        for key in [key for key in _kept if key not in _captured]:
            del _kept[key]
        _fitted.clear()


def _rounded(n: int) -> int:
    """n or up to a quarter more, so that growing texts share what is kept."""
    step = max(64, 1 << max(0, n.bit_length() - 3))
    return -(-n // step) * step


def find_attention(config: Config, rows: int, sequences: int, length: int, index: int, capturing: bool) -> _Kept:
    """The PagedAttention kept for calls of about this size; layers whose plans are the same share it."""
    most = _rounded(length)
    if config.keys_rotated and length <= config.trained_context:
        most = min(most, config.trained_context)
    rows = _rounded(rows)
    with _lock:
        key = (_shared(config), rows, sequences, most, index)
        if key in _kept:
            _kept.move_to_end(key)
        elif capturing:
            raise BoughError("the first attention of a shape is captured in a graph: call it once before the capture")
        else:
            made = _Kept(PagedAttention.of_config(config, rows, sequences, most, index))
            _fitted[config.plan, config.trained_context] = made.attention.plan
            key = (_shared(config), *key[1:])
            _kept[key] = made
            for old in [old for old in _kept if old not in _captured][:-MOST_KEPT]:
                del _kept[old]
        if capturing:
            _captured.add(key)
        return _kept[key]


def _shared(config: Config) -> Config:
    """That of the first layer whose plan is the same, as soon as the plan is known."""
    fitted = _fitted.get((config.plan, config.trained_context))
    return config if fitted is None else dataclasses.replace(config, layer=first_alike(fitted, config.layer))


def _have_one_stride(at: View) -> bool:
    """Whether one stride leads from each row of a view [b, hq, tq, d] to the next, over all sequences."""
    b, _, rows, _ = at.shape
    step = steps(at)
    return b == 1 or rows == 1 or step[0] == rows * step[2]


def _q_rows(at: View) -> Rows:
    check_last(at, "q")
    step = steps(at)
    return Rows(at.pointer, step[0] if at.shape[2] == 1 else step[2], step[1])


def _plane(at: View, name: str, page_tokens: int) -> Plane:
    check_last(at, name)
    step = steps(at)
    plane = Plane(data=at.pointer, sequence_stride=step[0], head_stride=step[1], token_stride=step[2])
    plane.page_stride = page_tokens * step[2]
    return plane


def _place_scale(plane: Plane, at: View, name: str, shape: tuple[int, ...], page_tokens: int) -> None:
    if not put_scale(plane, at, name, shape):
        return
    plane.scale_sequence_stride, plane.scale_head_stride, plane.scale_token_stride = at.strides
    plane.scale_page_stride = page_tokens * at.strides[2]


def _cache_of(config: Config, k: Any, v: Any, k_scale: Any, v_scale: Any) -> Cache:
    cache = Cache()
    for name, array, scale in (("k", k, k_scale), ("v", v, v_scale)):
        at = view(array, name)
        check_type(at, name, config.kv_dtype, "cuda")
        setattr(cache, name, _plane(at, name, config.page_tokens))
        if scale is not None:
            where = view(scale, f"{name}_scale")
            _place_scale(getattr(cache, name), where, f"{name}_scale", at.shape[:3], config.page_tokens)
    return cache


def _put_means(kept: _Kept, cache: Cache, q: Any, k: Any, batch: Batch, arrays: Any, stream: int) -> Any:
    """Those of all keys, where the plan reads them; what keeps their memory."""
    n = kept.attention.mean_keys
    if n == 0:
        return None
    at = view(k, "k")
    b, heads, tokens, d = at.shape
    means = arrays.empty((b, -(-tokens // n), heads, d), q)
    plane = Plane(data=view(means, "means").pointer, token_stride=heads * d, head_stride=d)
    plane.page_stride = kept.attention.config.page_tokens // n * heads * d
    plane.sequence_stride = means.shape[1] * heads * d
    cache.summary, cache.summary_step = plane, n
    all_keys = Batch(None, batch.lengths, 0, batch.longest, batch.sequences)
    call("bough_paged_summarise", kept.attention._handle, byref(all_keys), byref(cache), stream)
    return means


def attend_cuda(
    config: Config, q: Any, k: Any, v: Any, lengths: Any, k_scale: Any, v_scale: Any, sinks: Any
) -> tuple[Any, Any]:
    """o [b, hq, tq, d] of q's type and lse [b, hq, tq] float32, both swapped from [b, tq, hq, ...]."""
    at = view(q, "q")
    arrays = arrays_of(q, at.index)
    if at.dtype not in ("bfloat16", "float16"):
        raise BoughError(f"q has elements of type {at.dtype}, on a CUDA device they must be bfloat16 or float16")
    config = dataclasses.replace(config, dtype=at.dtype, kv_dtype=_kv_type(view(k, "k")))
    b, heads, rows, d = at.shape
    tokens = view(k, "k").shape[2]
    with arrays.guard():
        stream, capturing = arrays.stream(), arrays.capturing()
        kept = find_attention(config, b * rows, b, tokens, at.index, capturing)
        workspace = workspace_of(kept, arrays, stream, capturing)
        if not _have_one_stride(at):
            q = arrays.swap(arrays.contiguous(arrays.swap(q)))
        q_rows = _q_rows(view(q, "q"))
        cache = _cache_of(config, k, v, k_scale, v_scale)
        o, lse = arrays.empty((b, rows, heads, d), q), arrays.floats((b, rows, heads))
        start = arrays.steps(b + 1, rows)
        many = arrays.full(b, tokens) if lengths is None else lengths
        batch = Batch(view(start, "start").pointer, ints(many, "lengths", b).pointer, b * rows, tokens, b)
        o_rows = Rows(view(o, "o").pointer, heads * d, d)
        sink = floats(sinks, "sink_logits", heads)
        head = kept.attention._handle, byref(batch), byref(q_rows), byref(cache)
        memory = view(workspace, "workspace").pointer
        means = _put_means(kept, cache, q, k, batch, arrays, stream)
        call("bough_paged_prune", *head, memory, stream)
        call("bough_paged_attend", *head, byref(o_rows), view(lse, "lse").pointer, sink, memory, stream)
        del means
    return arrays.swap(o), lse.swapaxes(1, 2)


def workspace_of(kept: _Kept, arrays: Any, stream: int, capturing: bool) -> Any:
    """One a stream; a graph gets one of its own, which it zeroes in every run, since it may run on any stream."""
    count = kept.attention.workspace_bytes
    if capturing:
        return arrays.zero_bytes(count)
    if stream not in kept.workspaces:
        kept.workspaces[stream] = arrays.zero_bytes(count)
    return kept.workspaces[stream]


def _kv_type(at: View) -> str:
    if at.dtype not in ("bfloat16", "float16", "float8_e4m3fn", "int8"):
        raise BoughError(f"k has elements of type {at.dtype}, they must be of q's type, float8_e4m3fn or int8")
    return at.dtype
