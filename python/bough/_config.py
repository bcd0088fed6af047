"""What is fixed for a layer's attention: checked here as far as ctypes needs it, by the library otherwise."""

from __future__ import annotations

import ctypes
import functools
import json
import os
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

from ._library import ELEMENT_TYPES, ROPE_PAIRS, BoughError, Shape

Plan = Union[str, "os.PathLike[str]", Mapping[str, Any]]

DEFAULT_TRAINED_CONTEXT = 131072  # tokens


@dataclass(frozen=True)
class Config:
    """Hashable; fields as in bough_attention_shape."""

    plan: str
    layer: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"
    page_tokens: int = 64
    frequencies: tuple[float, ...] = ()
    rope_pairs: str = "halves"
    rope_magnitude: float = 1.0
    scale: float = 0.0
    softcap: float = 0.0
    sliding_window: int = 0
    keys_rotated: bool = False
    trained_context: int = DEFAULT_TRAINED_CONTEXT

    def shape(self) -> Shape:
        """The struct; it owns what it points to."""
        shape = Shape()
        shape.heads, shape.kv_heads, shape.head_dim = self.heads, self.kv_heads, self.head_dim
        shape.q_type = ELEMENT_TYPES[self.dtype]
        shape.kv_type = ELEMENT_TYPES[self.kv_dtype]
        shape.page_tokens = self.page_tokens
        shape.scale, shape.softcap = self.scale, self.softcap
        shape.sliding_window = self.sliding_window
        shape.keys_rotated = int(self.keys_rotated)
        shape.trained_context = self.trained_context
        shape.rope_pairs = ROPE_PAIRS[self.rope_pairs]
        shape.frequencies = (ctypes.c_double * max(1, len(self.frequencies)))(*self.frequencies)
        shape.frequency_count = len(self.frequencies)
        shape.rope_magnitude = self.rope_magnitude
        return shape


def plan_text(plan: Plan) -> str:
    """A preset's name, JSON or a file's path as the library takes it; a mapping becomes JSON."""
    if isinstance(plan, Mapping):
        return json.dumps(dict(plan))
    return os.fspath(plan)


@functools.lru_cache(maxsize=4096)
def first_alike(plan: str, layer: int) -> int:
    """The first layer whose plan is that of `layer`. plan: JSON, complete."""
    fields = json.loads(plan)
    first = (fields.get("first") or {}).get("layers", 0)
    entries = [set(entry["layers"]) for entry in fields.get("layers") or []]

    def kind(i: int) -> tuple[bool, Optional[int]]:
        return i < first, next((n for n, entry in enumerate(entries) if i in entry), None)

    return next(i for i in range(layer + 1) if kind(i) == kind(layer))


def rope_frequencies(
    head_dim: int, theta: Optional[float], dims: Optional[int], frequencies: Optional[Sequence[float]]
) -> tuple[float, ...]:
    """Radians a position of each pair: `frequencies`, or theta ** (-2 i / dims), or none where nothing turns."""
    if frequencies is not None:
        if theta is not None:
            raise BoughError(f"rope_theta is {theta} and frequencies are given too; give one of them")
        return tuple(float(x) for x in frequencies)
    if theta is None:
        return ()
    if not theta > 0:
        raise BoughError(f"rope_theta is {theta}, it must be more than 0")
    n = head_dim if dims is None else dims
    return tuple(float(theta) ** (-2.0 * i / n) for i in range(n // 2))


def dtype_name(dtype: Any, field: str) -> str:
    """'bfloat16' of "bf16", "bfloat16", torch.bfloat16, ...; 'float8_e4m3fn' of "e4m3" and so on. Raises BoughError."""
    short = {"bf16": "bfloat16", "f16": "float16", "half": "float16", "e4m3": "float8_e4m3fn", "i8": "int8"}
    text = str(getattr(dtype, "__name__", dtype)).rpartition(".")[2]
    name = short.get(text, text)
    if name not in ELEMENT_TYPES:
        raise BoughError(f"{field} is {text}, it must be one of {', '.join(ELEMENT_TYPES)}")
    return name


def check_pairs(rope_pairs: str) -> str:
    if rope_pairs not in ROPE_PAIRS:
        raise BoughError(f"rope_pairs is '{rope_pairs}', it must be one of {', '.join(ROPE_PAIRS)}")
    return rope_pairs
