"""Memory and streams of the caller's array library: PyTorch or CuPy."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, ContextManager, Optional, Sequence

from ._dlpack import is_torch
from ._library import BoughError


class TorchArrays:
    """CUDA arrays of PyTorch on one device."""

    def __init__(self, index: int) -> None:
        import torch

        self.torch = torch
        self.device = torch.device("cuda", index)

    def guard(self) -> ContextManager[Any]:
        """Makes the device the current one."""
        return self.torch.cuda.device(self.device)

    def stream(self) -> int:
        return int(self.torch.cuda.current_stream(self.device).cuda_stream)

    def capturing(self) -> bool:
        return bool(self.torch.cuda.is_current_stream_capturing())

    def zero_bytes(self, count: int, stream: Optional[int] = None) -> Any:
        """Zeroed on the current stream, or on the given one."""
        outer: ContextManager[Any] = contextlib.nullcontext()
        if stream is not None and stream != self.stream():
            outer = self.torch.cuda.stream(self.torch.cuda.ExternalStream(stream, device=self.device))
        with outer:
            return self.torch.zeros(count, dtype=self.torch.uint8, device=self.device)

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        return self.torch.empty(tuple(shape), dtype=like.dtype, device=self.device)

    def floats(self, shape: Sequence[int]) -> Any:
        return self.torch.empty(tuple(shape), dtype=self.torch.float32, device=self.device)

    def steps(self, count: int, step: int) -> Any:
        """0, step, 2 step, ... as int32."""
        return self.torch.arange(0, count * step, step, dtype=self.torch.int32, device=self.device)

    def full(self, count: int, value: int) -> Any:
        return self.torch.full((count,), value, dtype=self.torch.int32, device=self.device)

    def as_ints(self, raw: Any, shape: Sequence[int]) -> Any:
        return raw.view(self.torch.int32).view(tuple(shape))

    @staticmethod
    def swap(array: Any) -> Any:
        """[b, t, h, d] as [b, h, t, d], or the other way round."""
        return array.transpose(1, 2)

    @staticmethod
    def contiguous(array: Any) -> Any:
        return array.contiguous()


class CupyArrays:
    """CUDA arrays of CuPy on one device."""

    def __init__(self, index: int) -> None:
        import cupy

        self.cupy = cupy
        self.index = index

    def guard(self) -> ContextManager[Any]:
        return self.cupy.cuda.Device(self.index)

    def stream(self) -> int:
        return int(self.cupy.cuda.get_current_stream().ptr)

    def capturing(self) -> bool:
        return bool(self.cupy.cuda.get_current_stream().is_capturing())

    def zero_bytes(self, count: int, stream: Optional[int] = None) -> Any:
        outer: ContextManager[Any] = contextlib.nullcontext()
        if stream is not None and stream != self.stream():
            outer = self.cupy.cuda.ExternalStream(stream)
        with outer:
            return self.cupy.zeros(count, dtype=self.cupy.uint8)

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        return self.cupy.empty(tuple(shape), dtype=like.dtype)

    def floats(self, shape: Sequence[int]) -> Any:
        return self.cupy.empty(tuple(shape), dtype=self.cupy.float32)

    def steps(self, count: int, step: int) -> Any:
        return self.cupy.arange(0, count * step, step, dtype=self.cupy.int32)

    def full(self, count: int, value: int) -> Any:
        return self.cupy.full((count,), value, dtype=self.cupy.int32)

    def as_ints(self, raw: Any, shape: Sequence[int]) -> Any:
        return raw.view(self.cupy.int32).reshape(tuple(shape))

    @staticmethod
    def swap(array: Any) -> Any:
        return array.transpose(0, 2, 1, 3)

    def contiguous(self, array: Any) -> Any:
        return self.cupy.ascontiguousarray(array)


def arrays_of(array: Any, index: int) -> Any:
    """The library of a CUDA array on device `index`. Raises BoughError for one that nothing can be allocated with."""
    if is_torch(array):
        return TorchArrays(index)
    if type(array).__module__.partition(".")[0] == "cupy":
        return CupyArrays(index)
    raise BoughError(
        f"a {type(array).__name__} on a CUDA device is known neither to PyTorch nor to CuPy", "unsupported"
    )


def on_device(index: Optional[int]) -> ContextManager[Any]:
    """Makes a device the current one of the library of arrays that is loaded; None changes nothing."""
    if index is not None and "torch" in sys.modules:
        return sys.modules["torch"].cuda.device(index)  # type: ignore[no-any-return]
    if index is not None and "cupy" in sys.modules:
        return sys.modules["cupy"].cuda.Device(index)  # type: ignore[no-any-return]
    return contextlib.nullcontext()
