"""probe (probe.py) as a Triton kernel: no key is copied, no product written. float32 sums, keys that turn are rounded to their own type."""

from __future__ import annotations

from typing import Optional

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from .probe import Turn

KEYS = 128  # of a program


@triton.jit  # type: ignore[untyped-decorator]
def _probe(  # type: ignore[no-untyped-def]  # Triton reads annotations as code
    q,
    keys,
    index,
    at,
    cos,
    sin,
    out,
    n,
    m,
    key_head,
    index_block,
    index_head,
    at_block,
    heads,
    TURNS: tl.constexpr,
    HALF: tl.constexpr,
    BN: tl.constexpr,
    BM: tl.constexpr,
):
    j = tl.program_id(0) * BN + tl.arange(0, BN)
    head = tl.program_id(1)
    block = tl.program_id(2)
    inside = j < n
    e = tl.arange(0, HALF)
    token = tl.load(index + block * index_block + head * index_head + j, mask=inside, other=0).to(tl.int64)
    row = keys + head * key_head + token[:, None] * (2 * HALF) + e[None, :]
    low = tl.load(row)
    high = tl.load(row + HALF)
    if TURNS:
        position = tl.load(at + block * at_block + j, mask=inside, other=0)
        c = tl.load(cos + position[:, None] * HALF + e[None, :])
        s = tl.load(sin + position[:, None] * HALF + e[None, :])
        x = low.to(tl.float32)
        y = high.to(tl.float32)
        low = (x * c - y * s).to(q.dtype.element_ty)
        high = (y * c + x * s).to(q.dtype.element_ty)
    best = tl.full([BN], float("-inf"), tl.float32)
    first = q + (block * heads + head) * m * (2 * HALF)
    for i in range(0, m, BM):
        r = tl.minimum(i + tl.arange(0, BM), m - 1)  # the last row again: no maximum changes
        part = first + r[:, None] * (2 * HALF) + e[None, :]
        product = tl.dot(low, tl.trans(tl.load(part)))
        product = tl.dot(high, tl.trans(tl.load(part + HALF)), product)
        best = tl.maximum(best, tl.max(product, 1))
    tl.store(out + (block * heads + head).to(tl.int64) * n + j, best, mask=inside)


def probe_triton(q: Tensor, keys: Tensor, index: Tensor, at: Optional[Tensor], turn: Turn) -> Tensor:
    b, heads, m, d = q.shape
    n = index.shape[-1]
    q, index = q.contiguous(), index.expand(b, heads, n)
    if keys.stride(2) != 1 or keys.stride(1) != d or index.stride(2) != 1 or (at is not None and at.stride(2) != 1):
        raise ValueError("keys have to be contiguous rows, index and positions contiguous in their last dimension")
    out = torch.empty((b, heads, n), device=q.device)
    rows = 64 if m % 64 == 0 else 32 if m % 32 == 0 else 16
    where = turn.cos if at is None else at  # any pointer where nothing turns
    _probe[(triton.cdiv(n, KEYS), heads, b)](
        q,
        keys,
        index,
        where,
        turn.cos,
        turn.sin,
        out,
        n,
        m,
        keys.stride(0),
        index.stride(0),
        index.stride(1),
        0 if at is None else at.stride(0),
        heads,
        TURNS=at is not None,
        HALF=d // 2,
        BN=KEYS,
        BM=rows,
    )
    return out
