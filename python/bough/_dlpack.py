"""Any array with __dlpack__ (PyTorch, CuPy, NumPy, ...) as a pointer, a shape, strides, a type and a device."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from ._library import BoughError

_CPU_DEVICES = (1, 3)  # kDLCPU, kDLCUDAHost
_CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged
_TYPES = {
    (0, 8): "int8",
    (1, 8): "uint8",
    (0, 32): "int32",
    (0, 64): "int64",
    (2, 16): "float16",
    (2, 32): "float32",
    (2, 64): "float64",
    (4, 16): "bfloat16",
    (10, 8): "float8_e4m3fn",
}


class _Device(Structure):
    _fields_ = [("type", c_int32), ("index", c_int32)]


class _Type(Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class _Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device", _Device),
        ("ndim", c_int32),
        ("dtype", _Type),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _Versioned(Structure):
    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    ]


_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype = ctypes.c_char_p
_capsule_name.argtypes = [ctypes.py_object]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True)
class View:
    """Somebody else's array. Strides are in elements; `owner` keeps the memory alive as long as the view."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str  # a name as NumPy and PyTorch have it
    device: str  # "cpu" or "cuda"
    index: int  # of the device
    owner: Any


def is_torch(array: Any) -> bool:
    """Whether it is a torch.Tensor, by what only tensors have: torch is not imported for it, and torch.compile can trace it."""
    return hasattr(array, "untyped_storage") and hasattr(array, "data_ptr")


def view(array: Any, name: str) -> View:
    """The array that the caller calls `name`. Nothing waits for a stream. Raises BoughError."""
    if is_torch(array):
        # A tensor's own fields, since its __dlpack__ knows fewer types and may not be called while a graph is captured.
        device = array.device
        if device.type not in ("cpu", "cuda"):
            raise BoughError(f"{name} is on device {device}, it must be on the CPU or a CUDA device")
        dtype = str(array.dtype).partition(".")[2]
        return View(
            array.data_ptr(), tuple(array.shape), tuple(array.stride()), dtype, device.type, device.index or 0, array
        )
    if not hasattr(array, "__dlpack__") or not hasattr(array, "__dlpack_device__"):
        raise BoughError(f"{name} is a {type(array).__name__}, it must be an array with __dlpack__")
    kind, _ = array.__dlpack_device__()
    if int(kind) not in _CPU_DEVICES + _CUDA_DEVICES:
        raise BoughError(f"{name} is on a device of DLPack type {int(kind)}, it must be on the CPU or a CUDA device")
    return _of_capsule(_capsule(array, int(kind) in _CUDA_DEVICES), name)


def _capsule(array: Any, cuda: bool) -> Any:
    options: dict[str, Any] = {"stream": -1} if cuda else {}
    try:
        return array.__dlpack__(max_version=(1, 1), **options)
    except TypeError:
        return array.__dlpack__(**options)


def _of_capsule(capsule: Any, name: str) -> View:
    # The capsule is not marked as used, so that its own destructor frees what it holds when the view goes.
    kind = _capsule_name(capsule)
    pointer = _capsule_pointer(capsule, kind)
    if kind == b"dltensor_versioned":
        versioned = ctypes.cast(pointer, POINTER(_Versioned)).contents
        if versioned.major > 1:
            raise BoughError(f"{name} comes in DLPack {versioned.major}.{versioned.minor}, known is 1", "unsupported")
        tensor = versioned.tensor
    else:
        tensor = ctypes.cast(pointer, POINTER(_Tensor)).contents
    dtype = _TYPES.get((tensor.dtype.code, tensor.dtype.bits)) if tensor.dtype.lanes == 1 else None
    if dtype is None:
        raise BoughError(f"{name} has elements of DLPack type {tensor.dtype.code} with {tensor.dtype.bits} bits")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else _compact(shape)
    device = "cpu" if tensor.device.type in _CPU_DEVICES else "cuda"
    return View((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, device, tensor.device.index, capsule)


def _compact(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)
