"""probe: the best product of each key that an index names with any of a query block's rows. The PyTorch body is the oracle of the Triton one."""

from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

BUDGET = 2 << 30  # bytes that the PyTorch body gathers at once


class Turn:
    """Angles of RoPE in halves, as tables; positions are integers below `count`."""

    def __init__(self, dims: int, theta: float, count: int, device: torch.device) -> None:
        turns = theta ** (-2.0 * torch.arange(dims // 2, dtype=torch.float64) / dims)
        angle = torch.arange(count, dtype=torch.float64)[:, None] * turns
        self.count = count
        self.cos, self.sin = angle.cos().float().to(device), angle.sin().float().to(device)  # [count, dims / 2]

    def __call__(self, x: Tensor, position: Tensor | int) -> Tensor:
        """x [..., dims] turned in float32; position: one for all, or integers of its shape but the
        last dimension, or to be broadcast to that."""
        low, high = x.float().chunk(2, dim=-1)
        c, s = self.cos[position], self.sin[position]
        return torch.cat((low * c - high * s, high * c + low * s), dim=-1)


# q [b, kv heads, m, d], keys [kv heads, t, d] of q's type, index [1 or b, 1 or kv heads, n] int32 tokens, at [b, 1, n] int32 the positions
# at which the keys are turned, or None: scores [b, kv heads, n] float32.
Probe = Callable[[Tensor, Tensor, Tensor, Optional[Tensor], Turn], Tensor]


def probe_torch(q: Tensor, keys: Tensor, index: Tensor, at: Optional[Tensor], turn: Turn) -> Tensor:
    b, heads, m, d = q.shape
    n = index.shape[-1]
    index = index.expand(b, heads, n)
    head = torch.arange(heads, device=q.device)[None, :, None]
    out = torch.empty((b, heads, n), device=q.device)
    step = max(1, BUDGET // (heads * n * (d * 8 + m * 8)))
    for i in range(0, b, step):
        rows = slice(i, i + step)
        found = keys[head, index[rows].long()]
        if at is not None:
            found = turn(found, at[rows].expand(-1, heads, n).long()).to(q.dtype)
        if q.device.type == "cpu":
            product = q[rows].float() @ found.float().transpose(-1, -2)
        else:
            product = (q[rows] @ found.transpose(-1, -2)).float()
        out[rows] = product.amax(dim=2)
    return out
