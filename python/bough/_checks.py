"""Checks of arrays, one sentence each, that name the array, what it has and what it must have."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from ._dlpack import View, view
from ._library import BoughError, Plane


def steps(at: View) -> tuple[int, ...]:
    """Strides in elements, with a row's for dimensions of size 1, whose own strides mean nothing."""
    return tuple(at.shape[-1] if n == 1 else stride for n, stride in zip(at.shape, at.strides))


def check_last(at: View, name: str) -> None:
    """Raises BoughError unless the elements of the last dimension lie side by side."""
    if at.shape[-1] > 1 and at.strides[-1] != 1:
        raise BoughError(f"the last stride of {name} is {at.strides[-1]} elements, it must be 1")


def check_type(at: View, name: str, dtype: str, device: str) -> None:
    if at.dtype != dtype:
        raise BoughError(f"{name} has elements of type {at.dtype}, they must be {dtype}")
    if at.device != device:
        raise BoughError(f"{name} is on the {at.device} device, it must be on the {device} device")


def check_compact(at: View, name: str, count: int) -> None:
    size, step = 1, 1
    for n, stride in zip(reversed(at.shape), reversed(at.strides)):
        if n > 1 and stride != step:
            raise BoughError(f"{name} has strides {list(at.strides)}, it must be contiguous")
        size, step = size * n, step * n
    if size != count:
        raise BoughError(f"{name} has {size} elements, it must have {count}")


def check_bytes(at: View, name: str, count: int) -> None:
    if at.dtype not in ("uint8", "int8") or at.device != "cuda" or len(at.shape) != 1 or at.strides[0] != 1:
        raise BoughError(f"{name} must be one contiguous dimension of uint8 on the cuda device")
    if at.shape[0] < count:
        raise BoughError(f"{name} has {at.shape[0]} bytes, it must have {count} or more")


def ints(array: Any, name: str, count: Optional[int], dims: int = 1) -> View:
    at = view(array, name)
    check_type(at, name, "int32", "cuda")
    if len(at.shape) != dims or at.strides[-1] != 1:
        raise BoughError(f"{name} has shape {list(at.shape)}, it must have {dims} dimensions, the last contiguous")
    if count is not None and at.shape[0] != count:
        raise BoughError(f"{name} has {at.shape[0]} elements, it must have {count}")
    return at


def floats(array: Any, name: str, count: int) -> Optional[int]:
    """Where `count` contiguous float32 begin on the device; None where there is no array."""
    if array is None:
        return None
    at = view(array, name)
    check_type(at, name, "float32", "cuda")
    check_compact(at, name, count)
    return at.pointer


def put_scale(plane: Plane, at: View, name: str, shape: Sequence[int]) -> bool:
    """Puts a cache's scale into its plane. False for one number, otherwise strides are to be set."""
    check_type(at, name, "float32", "cuda")
    plane.scale = at.pointer
    if all(n == 1 for n in at.shape):
        return False
    if at.shape != tuple(shape):
        raise BoughError(f"{name} has shape {list(at.shape)}, it must be one number or {list(shape)}")
    return True
