"""A pruning search in PyTorch, for what the library does not have: the same lists as its stages, with other scores, strides and sharing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional

from .probe import Probe, Turn
from .search_plan import SearchPlan, Stage

BLOCK = 64  # rows
NONE = 1 << 30  # start of a chunk that is none
CENTRE_TOKENS = 4096  # from which the centre of coarse copies is taken
TILE = 1 << 28  # elements of one score tensor, at most


class Blocks:
    """Query blocks of one call, or the groups of them that search together. Lists of the host, and r0 and w0 as int32 [b] on the device."""

    def __init__(self, rows: list[int], r0: list[int], w0: list[int], device: torch.device) -> None:
        self.rows = rows
        self.r0 = r0  # position of the first row
        self.w0 = w0  # first token of the window; 0 where everything is seen
        self.r0_at = torch.tensor(r0, dtype=torch.int32).to(device)
        self.w0_at = torch.tensor(w0, dtype=torch.int32).to(device)


def blocks_of(plan: SearchPlan, k: int, first: int, rows: int, own: bool, device: torch.device) -> Blocks:
    """As the library places them. REQUIRES: first is a multiple of 64 unless own."""
    size = 1 if own else BLOCK
    counts = [min(size, rows - i) for i in range(0, rows, size)]
    r0 = list(range(first, first + rows, size))
    w0 = []
    for at, count in zip(r0, counts):
        window = max(plan.sinks, (at + 1 - plan.window) // plan.chunk * plan.chunk)
        everything = at + count <= plan.sinks + plan.window + k
        w0.append(0 if everything else min(at + count, window))
    return Blocks(counts, r0, w0, device)


def grouped(blocks: Blocks, share: int, device: torch.device) -> Blocks:
    """Runs of `share` blocks; candidates reach to the last one's window."""
    runs = range(0, len(blocks.rows), share)
    rows = [sum(blocks.rows[i : i + share]) for i in runs]
    return Blocks(rows, blocks.r0[::share], [blocks.w0[i : i + share][-1] for i in runs], device)


def pooled(q: Tensor, size: int, stride: int, kv_heads: int, scale: float) -> Tensor:
    """q [rows, heads, d]: means of `stride` rows of each run of `size`, scaled: [b, kv heads, group * size / stride, d] float32. What is
    missing of the last run repeats the last mean that is there."""
    rows, heads, d = q.shape
    runs = -(-rows // size)
    x = functional.pad(q.float(), (0, 0, 0, 0, 0, runs * size - rows)).view(-1, stride, heads, d)
    there = (rows - torch.arange(len(x), device=q.device) * stride).clamp(0, stride)
    x = x.sum(1) * (scale / there.clamp(min=1))[:, None, None]
    last = -(-rows // stride) - 1
    x = x[torch.arange(len(x), device=q.device).clamp(max=last)]
    x = x.view(runs, size // stride, kv_heads, heads // kv_heads, d)
    return x.permute(0, 2, 3, 1, 4).reshape(runs, kv_heads, -1, d)


def coarse(keys: Tensor, score: str) -> Tensor:
    """A copy of keys [kv heads, t, d] that has lost what few bits cannot hold: one scale a key, int4 and bit1 about the mean key."""
    x = keys.float()
    if score == "int8":
        step = x.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
        return ((x / step).round() * step).to(keys.dtype)
    centre = x[:, :CENTRE_TOKENS].mean(1, keepdim=True)
    x = x - centre
    if score == "int4":
        step = x.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 7
        return ((x / step).round() * step + centre).to(keys.dtype)
    return (x.sign() * x.abs().mean(-1, keepdim=True) + centre).to(keys.dtype)


def summary(keys: Tensor, first: int, piece: int, score: str) -> Tensor:
    """Of each whole run of `piece` keys from `first` on its mean [kv heads, n, d], or greatest and least elements [kv heads, n, 2 d]."""
    count = (keys.shape[1] - first) // piece
    x = keys[:, first : first + count * piece].view(len(keys), count, piece, -1)
    if score == "mean":
        return x.float().mean(2).to(keys.dtype)
    return torch.cat((x.amax(2), x.amin(2)), -1)


@dataclass(frozen=True)
class _Tile:
    """Groups that are searched at once."""

    q: Tensor  # their rows
    size: int  # rows of a group
    r0: Tensor  # [b]
    w0: Tensor  # [b, 1, 1]


class Search:
    """One layer's lists for one call of rows. keys [kv heads, t, d]: those of the text so far."""

    def __init__(
        self, plan: SearchPlan, layer: int, q: Tensor, keys: Tensor, probe: Probe, turn: Turn, trained: int
    ) -> None:
        self.plan, self.layer, self.q, self.keys = plan, layer, q, keys
        self.probe, self.turn, self.trained = probe, turn, trained
        self.scale = q.shape[2] ** -0.5
        self.sources: dict[tuple[str, int], Tensor] = {}

    def run(self, groups: Blocks, size: int) -> Tensor:
        """Starts of the selected chunks [b, 1 or kv heads, n] int32, ascending, NONE behind them. A group has `size` rows, the last one
        maybe fewer."""
        plan, count = self.plan, len(groups.rows)
        linear = plan.stages[0].score in ("exact", "int8", "int4", "bit1")
        most = max(groups.w0) // (1 if linear else plan.stages[0].chunk)
        step = max(1, TILE // (len(self.keys) * max([most, *(s.keep for s in plan.stages)])))
        parts = [self._tile(groups, size, i, min(i + step, count)) for i in range(0, count, step)]
        width = max(starts.shape[2] for starts in parts)
        return torch.cat([functional.pad(s, (0, width - s.shape[2]), value=NONE) for s in parts])

    def _tile(self, groups: Blocks, size: int, begin: int, end: int) -> Tensor:
        plan, stages = self.plan, self.plan.stages
        q = self.q[begin * size : min(end * size, len(self.q))]
        tile = _Tile(q, size, groups.r0_at[begin:end], groups.w0_at[begin:end, None, None])
        count = max(0, -(-(max(groups.w0[begin:end]) - plan.sinks) // stages[0].chunk))
        starts = torch.arange(count, device=q.device, dtype=torch.int32)[None, None] * stages[0].chunk + plan.sinks
        for i, stage in enumerate(stages):
            if i > 0:
                pieces = torch.arange(0, stages[i - 1].chunk, stage.chunk, device=q.device, dtype=torch.int32)
                starts = torch.where(starts[..., None] < NONE, starts[..., None] + pieces, NONE).flatten(2)
            last = i + 1 == len(stages)
            keep = (plan.k_of(self.layer) if last else stages[i + 1].keep) // stage.chunk
            there = starts < (tile.w0 if i == 0 else NONE)  # [b, lists, n]
            good = there & (starts < tile.w0) if last else there
            starts = self._cut(stage, tile, starts, there, good, keep)
        return starts

    def _cut(self, stage: Stage, tile: _Tile, starts: Tensor, there: Tensor, good: Tensor, keep: int) -> Tensor:
        """Of the candidates that are there the `keep` best good ones of each list, ascending."""
        if starts.shape[2] <= keep and (good is there or self.plan.lists == "layer"):
            return torch.where(good, starts, NONE).sort(-1).values
        keep = min(keep, starts.shape[2])
        score = self._score(stage, tile, starts, there)
        if self.plan.lists == "layer":
            score = score.amax(1, keepdim=True)
        best = score.masked_fill(~good, float("-inf")).topk(keep, dim=-1)
        least = good.sum(-1).amin(-1)[:, None, None]  # all lists of a block have equally many
        kept = torch.arange(keep, device=starts.device)[None, None] < least
        starts = starts.expand(score.shape).gather(-1, best.indices)
        return torch.where(kept, starts, NONE).sort(-1).values

    # ---- scores ----

    def _score(self, stage: Stage, tile: _Tile, starts: Tensor, there: Tensor) -> Tensor:
        """[b, kv heads, n] of candidates [1 or b, 1 or kv heads, n]."""
        rows = pooled(tile.q, tile.size, min(stage.stride, tile.size), len(self.keys), self.scale)
        window = self.plan.scan_window
        places: Optional[Tensor] = None
        if self.layer < self.plan.first:
            count = there[:, 0].sum(-1, dtype=torch.int32)[:, None]
            room = max(1, self.trained - window - 1)
            divide = ((count + room - 1) // room).clamp(min=1)
            at = torch.minimum(tile.r0[:, None], (count + divide - 1) // divide + window)
            index = torch.arange(starts.shape[2], device=starts.device, dtype=torch.int32)
            places = (index // divide)[:, None].clamp(max=self.turn.count - 1)
            left = right = self.turn(rows, at.long()[:, :, None]).to(self.keys.dtype)
        else:
            left, right = self._at(rows, window + 1), self._at(rows, window)
        starts = starts.clamp(max=self.keys.shape[1] - stage.chunk)
        if stage.score == "descent":
            return self._descend(stage, left, right, starts, places)
        return self._linear(stage, right, starts, places)

    def _at(self, rows: Tensor, position: int) -> Tensor:
        return self.turn(rows, position).to(self.keys.dtype)

    def _descend(self, stage: Stage, left: Tensor, right: Tensor, starts: Tensor, places: Optional[Tensor]) -> Tensor:
        low = starts.expand(-1, len(self.keys), -1)
        high = low + stage.chunk
        best: Optional[Tensor] = None
        for _ in range(stage.rounds or stage.chunk.bit_length()):
            middle = (low + high) >> 1
            a = self.probe(left, self.keys, (low + middle) >> 1, places, self.turn)
            z = self.probe(right, self.keys, (middle + high) >> 1, places, self.turn)
            goes_left = a > z
            high, low = torch.where(goes_left, middle, high), torch.where(goes_left, low, middle)
            now = torch.logaddexp(a, z) if self.plan.reduce == "mass" else torch.maximum(a, z)
            if best is None:
                best = now
            else:
                best = torch.logaddexp(best, now) if self.plan.reduce == "mass" else torch.maximum(best, now)
        assert best is not None
        return best

    def _linear(self, stage: Stage, rows: Tensor, starts: Tensor, places: Optional[Tensor]) -> Tensor:
        """Every key of a copy, or every piece's summary."""
        pieces = stage.score in ("mean", "minmax")
        piece = (stage.piece or stage.chunk) if pieces else 1
        first = self.plan.sinks if pieces else 0
        keys = self._source(stage.score, piece)
        if stage.score == "minmax":
            rows = torch.cat((rows.clamp(min=0), rows.clamp(max=0)), -1)
        each = torch.arange(stage.chunk // piece, device=starts.device, dtype=torch.int32)
        index = ((starts - first) // piece)[..., None] + each
        index = index.flatten(2).clamp(0, keys.shape[1] - 1).contiguous()
        if places is not None:
            places = places.repeat_interleave(len(each), -1)
        score = self.probe(rows, keys, index, places, self.turn)
        score = score.view(*score.shape[:2], -1, len(each))
        return torch.logsumexp(score, -1) if self.plan.reduce == "mass" else score.amax(-1)

    def _source(self, score: str, piece: int) -> Tensor:
        """What a linear score reads, made once a call."""
        if score == "exact":
            return self.keys
        key = (score, piece)
        if key not in self.sources:
            pieces = score in ("mean", "minmax")
            self.sources[key] = (
                summary(self.keys, self.plan.sinks, piece, score) if pieces else coarse(self.keys, score)
            )
        return self.sources[key]
