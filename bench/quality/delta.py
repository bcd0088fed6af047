"""A correction of pruned attention by a few dense rows (delta attention, arXiv 2505.11254): what a dense row has and the pruned one has not is
added to its neighbours too."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import KvCache
from .llama import Attention, Shape
from .probe import Turn


class DenseRows:
    """Exact attention of single rows. Keys of the last `window` tokens stand at their distance, those before it all at the window's, since
    the model knows no greater ones; in texts within the trained context every key stands at its own."""

    def __init__(self, shape: Shape, window: int, device: torch.device) -> None:
        self.shape, self.window = shape, window
        self.turn = Turn(shape.head_dim, shape.theta, shape.trained_context, device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> Tensor:
        """q [rows, heads, d] of the positions `at`, ascending, k and v [kv heads, t, d], all unturned: o as q."""
        heads, end = len(k), k.shape[1]
        window = end if end <= self.shape.trained_context else self.window
        x = q.view(len(q), heads, -1, q.shape[-1]).permute(1, 2, 0, 3)  # [kv heads, group, rows, d]
        tokens = at[:, None] - window + 1 + torch.arange(window, device=q.device)  # [rows, window]
        rank = torch.arange(window, device=q.device)
        scale = q.shape[-1] ** -0.5
        asks = (self.turn(x, window - 1) * scale).to(q.dtype)
        near = self.turn(k[:, tokens.clamp(min=0)], rank).to(q.dtype)  # [kv heads, rows, window, d]
        close = torch.einsum("hgrd,hrwd->hgrw", asks, near).float().masked_fill(tokens < 0, -torch.inf)
        far = (asks @ k[:, None].transpose(-1, -2)).float()
        far = far.masked_fill(torch.arange(end, device=q.device) > (at - window)[:, None], -torch.inf)
        weights = torch.cat((far, close), dim=-1).softmax(-1).to(q.dtype)
        o = weights[..., :end] @ v[:, None] + torch.einsum(
            "hgrw,hrwd->hgrd", weights[..., end:], v[:, tokens.clamp(min=0)]
        )
        return o.permute(2, 0, 1, 3).reshape(q.shape)


class DeltaAttention:
    """Another Attention, corrected by every `every`-th row where rows share their selection."""

    def __init__(self, base: Attention, cache: KvCache, every: int, window: int) -> None:
        self.base, self.cache, self.every = base, cache, every
        self.dense = DenseRows(cache.shape, window, cache.device)

    def start(self, tokens: int) -> None:
        self.base.start(tokens)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, first: int, own: bool) -> Tensor:
        o = self.base(layer, q, k, v, first, own)
        if own:
            return o
        end, rows = first + len(q), torch.arange(0, len(q), self.every, device=q.device)
        exact = self.dense(q[rows], self.cache.k[layer][:, :end], self.cache.v[layer][:, :end], rows + first)
        return o + (exact - o[rows]).repeat_interleave(self.every, 0)[: len(q)]
