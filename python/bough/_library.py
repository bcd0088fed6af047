"""libbough_attention.so through ctypes: structs, signatures and errors, as include/bough/attention_c.h has them."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

ABI_VERSION = 2
MESSAGE_BYTES = 1024

ELEMENT_TYPES = {"float16": 0, "bfloat16": 1, "float8_e4m3fn": 2, "int8": 3}
ROPE_PAIRS = {"interleaved": 0, "halves": 1}


class BoughError(ValueError):
    """What the library refused, in its own sentence. `code`: invalid_argument, not_found, unsupported, out_of_memory, ..."""

    CODES = (
        "ok",
        "invalid_argument",
        "not_found",
        "unsupported",
        "corrupt",
        "out_of_memory",
        "io_error",
        "cancelled",
        "internal",
    )

    def __init__(self, message: str, code: str = "invalid_argument") -> None:
        super().__init__(message)
        self.code = code


class Shape(Structure):
    _fields_ = [
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("q_type", c_int32),
        ("kv_type", c_int32),
        ("page_tokens", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
        ("keys_rotated", c_int32),
        ("rope_pairs", c_int32),
        ("sliding_window", c_int64),
        ("trained_context", c_int64),
        ("frequencies", POINTER(c_double)),
        ("frequency_count", c_int64),
        ("rope_magnitude", c_double),
    ]


class Limits(Structure):
    _fields_ = [("rows", c_int64), ("length", c_int64), ("sequences", c_int32), ("portable", c_int32)]


class Plane(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("sequence_stride", c_int64),
        ("page_stride", c_int64),
        ("token_stride", c_int64),
        ("head_stride", c_int64),
        ("scale", c_void_p),
        ("scale_sequence_stride", c_int64),
        ("scale_page_stride", c_int64),
        ("scale_token_stride", c_int64),
        ("scale_head_stride", c_int64),
    ]


class Cache(Structure):
    _fields_ = [
        ("k", Plane),
        ("v", Plane),
        ("page_table", c_void_p),
        ("table_stride", c_int64),
        ("summary", Plane),
        ("summary_step", c_int64),
    ]


class Batch(Structure):
    _fields_ = [
        ("query_start", c_void_p),
        ("lengths", c_void_p),
        ("rows", c_int64),
        ("longest", c_int64),
        ("sequences", c_int64),
    ]


class Rows(Structure):
    _fields_ = [("data", c_void_p), ("row", c_int64), ("head", c_int64)]


class Selection(Structure):
    _fields_ = [
        ("blocks", c_void_p),
        ("counts", c_void_p),
        ("starts", c_void_p),
        ("nb", c_int64),
        ("list_heads", c_int64),
        ("capacity", c_int64),
        ("chunk", c_int64),
    ]


class States(Structure):
    _fields_ = [
        ("states", c_void_p),
        ("slot", c_void_p),
        ("stage", c_void_p),
        ("slots", c_int32),
        ("least_stage", c_int32),
    ]


class CpuArray(Structure):
    _fields_ = [("data", c_void_p), ("batch", c_int64), ("head", c_int64), ("token", c_int64)]


class CpuCall(Structure):
    _fields_ = [
        ("sequences", c_int64),
        ("rows", c_int64),
        ("tokens", c_int64),
        ("lengths", c_void_p),
        ("q", CpuArray),
        ("k", CpuArray),
        ("v", CpuArray),
        ("o", CpuArray),
        ("lse", c_void_p),
        ("sink_logits", c_void_p),
    ]


_MESSAGE = [c_char_p, c_size_t]
_CALL = [c_void_p, POINTER(Batch), POINTER(Rows), POINTER(Cache)]
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bough_attention_abi_version": (c_uint32, []),
    "bough_attention_has_cuda": (c_int32, []),
    "bough_paged_create": (
        c_int32,
        [c_char_p, c_int32, POINTER(Shape), POINTER(Limits), POINTER(c_void_p), *_MESSAGE],
    ),
    "bough_attention_break_even_tokens": (c_int64, [c_int32, c_int32]),
    "bough_paged_destroy": (None, [c_void_p]),
    "bough_paged_plan": (c_char_p, [c_void_p]),
    "bough_paged_workspace_bytes": (c_int64, [c_void_p]),
    "bough_paged_state_bytes": (c_int64, [c_void_p, c_int32]),
    "bough_paged_due_stage": (c_int32, [c_void_p, c_int64, c_int64]),
    "bough_paged_stages": (c_int32, [c_void_p]),
    "bough_paged_mean_keys": (c_int32, [c_void_p]),
    "bough_paged_summarise": (c_int32, [c_void_p, POINTER(Batch), POINTER(Cache), c_void_p, *_MESSAGE]),
    "bough_paged_write": (
        c_int32,
        [c_void_p, POINTER(Batch), POINTER(Rows), POINTER(Rows), POINTER(Cache), c_void_p, *_MESSAGE],
    ),
    "bough_paged_prune": (c_int32, [*_CALL, c_void_p, c_void_p, *_MESSAGE]),
    "bough_paged_attend": (
        c_int32,
        [*_CALL, POINTER(Rows), c_void_p, c_void_p, c_void_p, c_void_p, *_MESSAGE],
    ),
    "bough_paged_selected": (None, [c_void_p, c_void_p, POINTER(Selection)]),
    "bough_paged_decode": (
        c_int32,
        [*_CALL, POINTER(States), POINTER(Rows), c_void_p, c_void_p, c_void_p, c_void_p, *_MESSAGE],
    ),
    "bough_cpu_attention": (c_int32, [c_char_p, c_int32, POINTER(Shape), POINTER(CpuCall), *_MESSAGE]),
}


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    """The library beside this file, or the one that $BOUGH_ATTENTION_LIBRARY names. Raises BoughError when it cannot be loaded."""
    path = os.environ.get("BOUGH_ATTENTION_LIBRARY") or str(pathlib.Path(__file__).with_name("libbough_attention.so"))
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise BoughError(f"{path} cannot be loaded: {error}", "not_found") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    version = loaded.bough_attention_abi_version()
    if version != ABI_VERSION:
        raise BoughError(f"{path} has ABI version {version}, this package needs {ABI_VERSION}", "unsupported")
    return loaded


def break_even_tokens(major: int, minor: int) -> int:
    """Tokens below which dense attention is the faster way on a CUDA device of this compute capability: a value for a plan's dense_below.

    Measured on 9.0, an estimate elsewhere. `break_even_tokens(*torch.cuda.get_device_capability())` asks for the current device's.
    """
    return int(library().bough_attention_break_even_tokens(major, minor))


def call(name: str, *arguments: Any) -> None:
    """Calls a function that reports a code and a sentence. Raises BoughError."""
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    code = getattr(library(), name)(*arguments, message, MESSAGE_BYTES)
    if code != 0:
        known = BoughError.CODES[code] if code < len(BoughError.CODES) else "internal"
        raise BoughError(message.value.decode("utf-8", "replace"), known)
