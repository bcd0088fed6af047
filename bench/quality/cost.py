"""Floating-point operations of a trial, counted: search, attention over the selection, linear layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Optional

import numpy as np

from .llama import Shape
from .search_plan import SearchPlan, Stage

BLOCK = 64


def stage_cost(
    plan: SearchPlan, index: int, k: int, ends: "np.ndarray[Any, np.dtype[np.float64]]", shape: Shape
) -> float:
    """FLOPs of one stage in one layer for searches whose candidates end at `ends` tokens."""
    s = plan.stages[index]
    entering = np.maximum(ends - plan.sinks, 0)
    if index > 0:
        entering = np.minimum(entering, s.keep)
    keep = plan.stages[index + 1].keep if index + 1 < len(plan.stages) else k
    scored = np.where(entering > keep, entering / s.chunk, 0)
    if s.score == "descent":
        keys = 2 * (s.rounds or s.chunk.bit_length())
    elif s.score in ("mean", "minmax"):
        keys = s.chunk // (s.piece or s.chunk) * (2 if s.score == "minmax" else 1)
    else:
        keys = s.chunk
    rows = BLOCK * plan.share // s.stride
    return float(scored.sum()) * keys * rows * shape.heads * 2 * shape.head_dim


def search_tflop(plan: SearchPlan, shape: Shape, length: int) -> list[float]:
    """Of each stage over a whole text."""
    ends = np.arange(0, length, BLOCK * plan.share, dtype=np.float64) + BLOCK * (plan.share - 1) - plan.window
    layers = [i for i in range(shape.layers) if plan.searches(i) or i == 0]
    return [sum(stage_cost(plan, s, plan.k_of(i), ends, shape) for i in layers) / 1e12 for s in range(len(plan.stages))]


def attention_tflop(plan: Optional[SearchPlan], shape: Shape, length: int) -> float:
    """None: dense."""
    seen = np.arange(0, length, BLOCK, dtype=np.float64) + BLOCK / 2
    total = 0.0
    for i in range(shape.layers):
        keys = seen if plan is None else np.minimum(seen, plan.sinks + plan.window + plan.k_of(i))
        total += float(keys.sum()) * BLOCK * shape.heads * 4 * shape.head_dim
    return total / 1e12


def _stage(fields: Mapping[str, Any]) -> Stage:
    piece = fields.get("piece", 0)
    score = "descent" if piece == 0 else "exact" if piece == 1 else "mean"
    rounds = fields.get("rounds", 0)
    return Stage(
        fields["chunk"], fields.get("keep", 0), fields.get("query_stride", 1), score, rounds, piece if piece > 1 else 0
    )


def as_search(fields: Mapping[str, Any]) -> Optional[SearchPlan]:
    """What a plan of mode stages searches, for its cost; None for other modes and plans with `layers`."""
    if fields.get("mode", "stages") != "stages" or fields.get("layers"):
        return None
    plan = SearchPlan(k=512, k_layers=())
    if "stages" in fields:
        plan = replace(plan, stages=tuple(_stage(s) for s in fields["stages"]))
    first = fields.get("first", {"layers": 3, "k": 4096}) or {"layers": 0, "k": 0}
    layers, k = first.get("layers", 3), first.get("k", 4096)
    named = {name: fields[name] for name in ("sinks", "window", "k", "lists") if name in fields}
    return replace(plan, first=layers, k_layers=((0, layers, k),), **named)
