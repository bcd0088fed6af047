"""A Llama-family model of a GGUF file in PyTorch: all but attention over the cache, which is the caller's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .gguf_file import GgufFile

SLICE = 8192  # rows of a call


@dataclass(frozen=True)
class Shape:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    epsilon: float
    trained_context: int


@dataclass
class Layer:
    """Weights [out, in] of the model's type; rows of q and k are ordered so that elements i and i + head_dim / 2 turn together."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Attention(Protocol):
    def start(self, tokens: int) -> None:
        """A new text of at most `tokens` tokens."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, first: int, own: bool) -> Tensor:
        """Rows [first, first + n) of the text, q [n, heads, d] and k, v [n, kv_heads, d] unturned: o as q. own: each row selects for itself."""


class Model:
    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> None:
        file = GgufFile(path)
        arch = file.metadata["general.architecture"]

        def field(name: str) -> float:
            return float(file.metadata[f"{arch}.{name}"])

        heads = int(field("attention.head_count"))
        self.shape = Shape(
            layers=int(field("block_count")),
            heads=heads,
            kv_heads=int(field("attention.head_count_kv")),
            head_dim=int(field("embedding_length")) // heads,
            theta=field("rope.freq_base"),
            epsilon=field("attention.layer_norm_rms_epsilon"),
            trained_context=int(field("context_length")),
        )
        self.device, self.dtype = device, dtype

        def weight(name: str) -> Tensor:
            return torch.from_numpy(file.tensor(name + ".weight")).to(device, dtype)

        self.embedding = weight("token_embd")
        self.head = weight("output") if "output.weight" in file.names else self.embedding
        self.norm = weight("output_norm")
        self.layers = [self._layer(weight, i) for i in range(self.shape.layers)]

    def _layer(self, weight: "Weight", index: int) -> Layer:
        def of(name: str) -> Tensor:
            return weight(f"blk.{index}.{name}")

        q, k = self._halves(of("attn_q")), self._halves(of("attn_k"))
        return Layer(
            of("attn_norm"),
            torch.cat((q, k, of("attn_v"))),
            of("attn_output"),
            of("ffn_norm"),
            torch.cat((of("ffn_gate"), of("ffn_up"))),
            of("ffn_down"),
        )

    def _halves(self, w: Tensor) -> Tensor:
        """The file's rows turn in neighbouring pairs (2i, 2i + 1)."""
        d = self.shape.head_dim
        return w.view(-1, d // 2, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)

    def _normed(self, x: Tensor, w: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), w, self.shape.epsilon)

    @torch.no_grad()
    def logits(self, tokens: Tensor, attention: Attention, own_rows: int, last: int) -> Tensor:
        """Reads a text [t] in slices, its last `own_rows` rows as one that selects for itself. Logits [last, vocabulary] float32 of the
        last rows."""
        count = len(tokens)
        attention.start(count)
        kept = self._slices(tokens[: count - own_rows], attention, max(0, count - last))
        if own_rows > 0:
            x = self._forward(tokens[count - own_rows :].to(self.device), attention, count - own_rows, True)
            kept.append(x[max(0, own_rows - last) :])
        return self._logits(torch.cat(kept))

    @torch.no_grad()
    def read(self, tokens: Tensor, attention: Attention, room: int) -> None:
        """Reads a text [t] that at most `room` tokens will follow."""
        attention.start(len(tokens) + room)
        self._slices(tokens, attention, len(tokens))

    @torch.no_grad()
    def ask(self, tokens: Tensor, attention: Attention, first: int, last: int) -> Tensor:
        """Rows [first, first + n) after a text that was read, each of which selects for itself; logits as above. What was read stays."""
        return self._logits(self._forward(tokens.to(self.device), attention, first, True)[-last:])

    def _slices(self, tokens: Tensor, attention: Attention, keep: int) -> list[Tensor]:
        """Rows from `keep` on."""
        kept: list[Tensor] = []
        for first in range(0, len(tokens), SLICE):
            x = self._forward(tokens[first : first + SLICE].to(self.device), attention, first, False)
            if first + len(x) > keep:
                kept.append(x[max(0, keep - first) :])
        return kept

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(self._normed(x, self.norm), self.head).float()

    def _forward(self, tokens: Tensor, attention: Attention, first: int, own: bool) -> Tensor:
        s = self.shape
        x = functional.embedding(tokens, self.embedding)
        for i, w in enumerate(self.layers):
            qkv = functional.linear(self._normed(x, w.attention_norm), w.qkv).view(len(x), -1, s.head_dim)
            k, v = qkv[:, s.heads : s.heads + s.kv_heads], qkv[:, s.heads + s.kv_heads :]
            o = attention(i, qkv[:, : s.heads], k, v, first, own)
            x = x + functional.linear(o.reshape(len(x), -1), w.output)
            gate, up = functional.linear(self._normed(x, w.ffn_norm), w.gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, w.down)
        return x


class Weight(Protocol):
    def __call__(self, name: str) -> Tensor: ...
