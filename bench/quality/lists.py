"""Attention over lists that a PyTorch search made: by PagedAttention, into whose workspace they are written, or by plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

import bough

from .attention import OWN_ROWS, KvCache
from .llama import SLICE, Shape
from .probe import Probe, Turn
from .search import BLOCK, NONE, Blocks, Search, blocks_of, grouped
from .search_plan import SearchPlan


def attend_torch(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, starts: Tensor, sinks: int, chunk: int, turn: Turn
) -> Tensor:
    """q [rows, heads, d] over each block's sinks, chunks [b, lists, n] and window, positions by rank: o as q. The oracle of the other way."""
    out = torch.empty_like(q)
    group, row = q.shape[1] // len(k), 0
    inside = torch.arange(chunk, device=q.device)
    for b, (rows, r0, w0) in enumerate(zip(blocks.rows, blocks.r0, blocks.w0)):
        for h in range(len(k)):
            selected = starts[b, h % starts.shape[1]].long()
            selected = (selected[selected < min(w0, NONE)][:, None] + inside).flatten()
            ends = torch.arange(min(sinks, w0), device=q.device), torch.arange(w0, r0 + rows, device=q.device)
            tokens = torch.cat((ends[0], selected, ends[1]))
            rank = torch.arange(len(tokens), device=q.device)
            own = rank[len(tokens) - rows :]
            x = turn(q[row : row + rows, h * group : (h + 1) * group].transpose(0, 1), own).to(q.dtype)
            keys = turn(k[h, tokens], rank).to(q.dtype)
            mask = rank[None] <= own[:, None]
            values = v[h, tokens].expand(group, -1, -1)
            o = functional.scaled_dot_product_attention(x, keys.expand(group, -1, -1), values, attn_mask=mask)
            out[row : row + rows, h * group : (h + 1) * group] = o.transpose(0, 1)
        row += rows
    return out


class ListPaged:
    """PagedAttention whose selection is replaced. Its own plan searches as little as a plan can, to have the blocks placed."""

    def __init__(self, plan: SearchPlan, k: int, shape: Shape, length: int, own: bool) -> None:
        coarse = min(512, 1 << ((plan.window // 2).bit_length() - 1))
        context = plan.sinks + plan.window + k + BLOCK + 8
        if context > shape.trained_context:
            raise ValueError(f"a context has {context} tokens, it must have {shape.trained_context} or fewer: k is {k}")
        stages = [{"chunk": coarse, "query_stride": 64}, {"chunk": plan.chunk, "keep": k, "query_stride": 64}]
        fields = {"sinks": plan.sinks, "window": plan.window, "stages": stages, "k": k, "row_k": 0, "lists": plan.lists}
        fields |= {"refresh": [8, 8], "tail": OWN_ROWS if own else 0, "first": None}
        self.paged = bough.PagedAttention(
            fields,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            rope_theta=shape.theta,
            trained_context=shape.trained_context,
            max_rows=OWN_ROWS if own else SLICE,
            max_sequences=1,
            max_length=length,
        )

    def __call__(self, cache: KvCache, layer: int, q: Tensor, end: int, blocks: Blocks, starts: Tensor) -> Tensor:
        batch = cache.paged(layer, len(q), end)
        self.paged.prune(q, **batch)
        into = self.paged.selection()
        b, lists, n = starts.shape
        before = starts < blocks.w0_at[:, None, None]
        into.starts[:b, :lists, :n] = torch.where(before, starts, 0)
        into.counts[:b, 0] = before.sum(-1).amin(-1).int()
        return self.paged.attend(q, **batch)  # type: ignore[no-any-return]


class ListAttention:
    """An Attention (llama.py) that searches in PyTorch."""

    def __init__(self, plan: SearchPlan, cache: KvCache, length: int, probe: Probe, paged: bool) -> None:
        shape = cache.shape
        self.plan, self.cache, self.length, self.probe, self.paged = plan, cache, length, probe, paged
        turned = max(
            shape.trained_context, plan.sinks + plan.window + 2 * BLOCK + max(plan.k_of(i) for i in range(shape.layers))
        )
        self.turn = Turn(shape.head_dim, shape.theta, turned, cache.device)
        self._blocks: dict[tuple[int, int, int, bool], Blocks] = {}
        self._groups: dict[tuple[int, int, int, bool], Blocks] = {}
        self._lists: dict[tuple[int, bool], ListPaged] = {}
        self._found = torch.empty(0)

    def start(self, tokens: int) -> None:
        if tokens > self.length:
            raise ValueError(f"the text has {tokens} tokens, at most {self.length} were announced")
        self.cache.start(tokens)
        self._blocks.clear()
        self._groups.clear()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, first: int, own: bool) -> Tensor:
        self.cache.write(layer, k, v, first)
        plan, end, most = self.plan, first + len(q), self.plan.k_of(layer)
        share = 1 if own else plan.share
        at = (most, first, len(q), own)
        if at not in self._blocks:
            self._blocks[at] = blocks_of(plan, most, first, len(q), own, q.device)
            self._groups[at] = grouped(self._blocks[at], share, q.device)
        blocks, groups = self._blocks[at], self._groups[at]
        if plan.searches(layer) or layer == 0:
            keys = self.cache.k[layer][:, :end]
            self._found = self._search(layer, q, keys, groups, share * (1 if own else BLOCK))
        starts = self._found.repeat_interleave(share, 0)[: len(blocks.rows)] if share > 1 else self._found
        if not self.paged:
            k, v = self.cache.k[layer][:, :end], self.cache.v[layer][:, :end]
            return attend_torch(q, k, v, blocks, starts, plan.sinks, plan.chunk, self.turn)
        if (most, own) not in self._lists:
            self._lists[most, own] = ListPaged(plan, most, self.cache.shape, self.length, own)
        return self._lists[most, own](self.cache, layer, q, end, blocks, starts)

    def _search(self, layer: int, q: Tensor, keys: Tensor, groups: Blocks, size: int) -> Tensor:
        lists = 1 if self.plan.lists == "layer" else len(keys)
        if max(groups.w0) == 0:
            return torch.full((len(groups.rows), lists, 1), NONE, dtype=torch.int32, device=q.device)
        search = Search(self.plan, layer, q, keys, self.probe, self.turn, self.cache.shape.trained_context)
        return search.run(groups, size)
