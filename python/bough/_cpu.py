"""attention() on the CPU: NumPy's arrays and PyTorch's, in float32 inside."""

from __future__ import annotations

from ctypes import byref
from typing import Any, Optional, Sequence

from ._checks import check_last
from ._config import Config
from ._dlpack import View, view
from ._library import BoughError, CpuArray, CpuCall, call


def attend_views(config: Config, arrays: Sequence[View], lengths: Optional[View], sinks: Optional[View]) -> None:
    """Of float32: q, k, v, o as in attention(), then lse [b, tq, hq] contiguous; lengths [b] int32, sinks [hq] float32."""
    q, k, v, o, lse = arrays
    given = CpuCall(sequences=q.shape[0], rows=q.shape[2], tokens=k.shape[2], lse=lse.pointer)
    given.lengths = lengths.pointer if lengths is not None else None
    given.sink_logits = sinks.pointer if sinks is not None else None
    for name, at in (("q", q), ("k", k), ("v", v), ("o", o)):
        check_last(at, name)
        setattr(given, name, CpuArray(at.pointer, at.strides[0], at.strides[1], at.strides[2]))
    shape = config.shape()
    call("bough_cpu_attention", config.plan.encode(), config.layer, byref(shape), byref(given))


def attend_numpy(
    config: Config, q: Any, k: Any, v: Any, lengths: Any, k_scale: Any, v_scale: Any, sinks: Any
) -> tuple[Any, Any]:
    """o [b, hq, tq, d] of q's type and lse [b, hq, tq] float32."""
    import numpy as np

    def floats(array: Any, name: str) -> Any:
        if not isinstance(array, np.ndarray):
            array = np.from_dlpack(array)
        if array.dtype not in (np.float32, np.float16):
            raise BoughError(f"{name} has elements of type {array.dtype}, on the CPU they must be float32 or float16")
        return array.astype(np.float32, copy=False)

    if k_scale is not None or v_scale is not None:
        raise BoughError(
            "k_scale and v_scale are of float8_e4m3fn and int8 keys and values, which NumPy arrays cannot be"
        )
    b, heads, rows, d = q.shape
    o, lse = np.empty((b, rows, heads, d), np.float32), np.empty((b, rows, heads), np.float32)
    out = o.transpose(0, 2, 1, 3)
    many = None if lengths is None else view(np.ascontiguousarray(lengths, np.int32), "lengths")
    sink = None if sinks is None else view(np.ascontiguousarray(sinks, np.float32), "sink_logits")
    views = [view(floats(x, name), name) for x, name in ((q, "q"), (k, "k"), (v, "v"), (out, "o"))]
    attend_views(config, [*views, view(lse, "lse")], many, sink)
    return out.astype(q.dtype, copy=False), lse.transpose(0, 2, 1)
