"""GGUF model files: metadata, and tensors as float32. Reads the element types that the default model has: F32, Q4_1, Q8_0."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 32  # bytes, where the file names none
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
BLOCK = 32  # elements of a quantised block
BLOCK_BYTES = {0: 4 * BLOCK, 3: 20, 8: 34}  # of element types F32, Q4_1, Q8_0


class _Cursor:
    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self) -> str:
        count = self.scalar("Q")
        self.at += count
        return bytes(self.data[self.at - count : self.at]).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            of, count = self.scalar("I"), self.scalar("Q")
            return [self.value(of) for _ in range(count)]
        return self.scalar(SCALARS[kind])


def dequantise(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    """The elements of whole blocks."""
    if kind == 0:
        return raw.view(np.float32)
    blocks = raw.reshape(-1, BLOCK_BYTES[kind])
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == 8:
        return (scale * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
    least = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    nibbles = blocks[:, 4:]
    levels = np.concatenate((nibbles & 15, nibbles >> 4), axis=1).astype(
        np.float32
    )  # element i and i + 16 share a byte
    return (scale * levels + least).reshape(-1)


class GgufFile:
    """`metadata` by key; tensor(name) [rows, columns] or [columns] float32, `names` of all of them. Raises ValueError."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.fromfile(path, dtype=np.uint8)
        cursor = _Cursor(self._bytes.data)
        if bytes(self._bytes[:4]) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        cursor.at = 8
        tensors, pairs = cursor.scalar("Q"), cursor.scalar("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = cursor.text()
            self.metadata[key] = cursor.value(cursor.scalar("I"))
        self._tensors: dict[str, tuple[list[int], int, int]] = {}
        for _ in range(tensors):
            name = cursor.text()
            shape = [cursor.scalar("Q") for _ in range(cursor.scalar("I"))]
            self._tensors[name] = (shape[::-1], cursor.scalar("I"), cursor.scalar("Q"))
        step = int(self.metadata.get("general.alignment", ALIGNMENT))
        self._start = -(-cursor.at // step) * step

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def tensor(self, name: str) -> NDArray[np.float32]:
        shape, kind, offset = self._tensors[name]
        if kind not in BLOCK_BYTES:
            raise ValueError(f"tensor {name} has element type {kind}, known are {sorted(BLOCK_BYTES)}")
        count = int(np.prod(shape))
        if count % BLOCK:
            raise ValueError(f"tensor {name} has {count} elements, which must be a multiple of {BLOCK}")
        first = self._start + offset
        raw = self._bytes[first : first + count // BLOCK * BLOCK_BYTES[kind]]
        return dequantise(raw, kind).reshape(shape)
