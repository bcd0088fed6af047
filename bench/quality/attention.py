"""Attention of the laboratory's model by the project's own library: whole plans, by PagedAttention on a GPU, by the CPU bodies elsewhere."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, Optional

import torch
from torch import Tensor

import bough

from .llama import SLICE, Shape

OWN_ROWS = 512  # rows that select for themselves, at most
PRESET_MODES = {"default": "stages", "hip": "hip", "streaming": "streaming", "dense": "dense"}
TAIL = 64  # tokens, where a plan that searches names none


def read_plan(spec: str) -> dict[str, Any]:
    """A preset that is called like its mode, JSON, or a file that holds it. Raises ValueError."""
    if spec in PRESET_MODES:
        return {"mode": PRESET_MODES[spec]}
    text = spec
    if os.path.exists(spec):
        with open(spec, encoding="utf-8") as file:
            text = file.read()
    if not text.lstrip().startswith("{"):
        raise ValueError(f"the plan is {spec!r}, it must be one of {', '.join(PRESET_MODES)}, JSON or a file")
    return dict(json.loads(text))


def searches(plan: Mapping[str, Any]) -> bool:
    return plan.get("mode", "stages") in ("stages", "hip")


def tail_of(plan: Mapping[str, Any]) -> int:
    return int(plan.get("tail", TAIL)) if searches(plan) else 0


def with_tail(plan: Mapping[str, Any], tail: int) -> dict[str, Any]:
    return {**plan, "tail": tail} if searches(plan) else dict(plan)


def same_as(plan: Mapping[str, Any], layer: int) -> tuple[bool, int]:
    """Equal for layers that do the same."""
    first = plan.get("first") or {}
    named = [i for i, entry in enumerate(plan.get("layers", [])) if layer in entry["layers"]]
    return layer < int(first.get("layers", 3)), named[0] if named else -1


class KvCache:
    """k and v [kv_heads, tokens, d] of each layer, unturned."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        self.room = 0
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []
        self.means: dict[int, bough.KeySummary] = {}
        self._averaged: dict[int, int] = {}  # tokens of the text that a layer's means have
        self._batches: dict[tuple[int, int], dict[str, Any]] = {}

    def start(self, tokens: int) -> None:
        self._averaged.clear()
        if tokens <= self.room:
            return
        self.k, self.v = [], []  # given back before more is asked for
        self.means.clear()
        self.room = -(-tokens // SLICE) * SLICE
        size = (self.shape.kv_heads, self.room, self.shape.head_dim)
        self.k = [torch.zeros(size, device=self.device, dtype=self.dtype) for _ in range(self.shape.layers)]
        self.v = [torch.zeros(size, device=self.device, dtype=self.dtype) for _ in range(self.shape.layers)]

    def write(self, layer: int, k: Tensor, v: Tensor, first: int) -> None:
        self.k[layer][:, first : first + len(k)] = k.transpose(0, 1)
        self.v[layer][:, first : first + len(k)] = v.transpose(0, 1)

    def summary(self, layer: int, paged: bough.PagedAttention, first: int, end: int) -> Optional[bough.KeySummary]:
        """The means that the layer's plan reads, those of tokens [first, end) made anew, all where the plan before read none."""
        n = paged.mean_keys
        if n == 0:
            return None
        k = self.k[layer].transpose(0, 1)[None]
        if layer not in self.means:
            made = paged.new_means(k, k)
            assert made is not None
            self.means[layer] = made
        batch = self.paged(layer, end - first // n * n, end)
        where = {name: batch[name] for name in ("lengths", "longest")}
        if self._averaged.get(layer, 0) >= first:
            where.update(query_start=batch["query_start"], rows=end - first // n * n)
        paged.summarise(k, self.means[layer], **where)
        self._averaged[layer] = end
        return self.means[layer]

    def paged(self, layer: int, rows: int, end: int) -> dict[str, Any]:
        """Arguments of PagedAttention's calls for the last `rows` of a text's `end` tokens."""
        if (rows, end) not in self._batches:

            def ints(*values: int) -> Tensor:
                return torch.tensor(values, dtype=torch.int32, device=self.device)

            self._batches[rows, end] = dict(lengths=ints(end), query_start=ints(0, rows), longest=end)
        k, v = self.k[layer].transpose(0, 1)[None], self.v[layer].transpose(0, 1)[None]
        return dict(k_cache=k, v_cache=v, **self._batches[rows, end])


class PagedLayers:
    """A PagedAttention for each layer; layers that do the same share one and its workspace."""

    def __init__(self, plan: Mapping[str, Any], shape: Shape, length: int, rows: int) -> None:
        kept: dict[tuple[bool, int], bough.PagedAttention] = {}
        self.of_layer: list[bough.PagedAttention] = []
        for layer in range(shape.layers):
            key = same_as(plan, layer)
            if key not in kept:
                kept[key] = bough.PagedAttention(
                    plan,
                    layer=layer,
                    heads=shape.heads,
                    kv_heads=shape.kv_heads,
                    head_dim=shape.head_dim,
                    rope_theta=shape.theta,
                    trained_context=shape.trained_context,
                    max_rows=rows,
                    max_sequences=1,
                    max_length=length,
                )
            self.of_layer.append(kept[key])


class PlanAttention:
    """An Attention (llama.py) that follows a plan in every step. Where the plan has "own", rows that select for themselves follow that one."""

    def __init__(self, plan: Mapping[str, Any], cache: KvCache, length: int) -> None:
        self.cache, self.length = cache, length
        shared = {name: value for name, value in plan.items() if name != "own"}
        self.plans = {False: with_tail(shared, 0), True: with_tail(plan.get("own", shared), OWN_ROWS)}
        self.paged: dict[bool, PagedLayers] = {}
        if cache.device.type == "cuda":
            for own, rows in ((False, SLICE), (True, OWN_ROWS)):
                self.paged[own] = PagedLayers(self.plans[own], cache.shape, length, rows)

    @property
    def fitted(self) -> str:
        """The plan as the library follows it, where it says so."""
        return self.paged[False].of_layer[0].plan if self.paged else json.dumps(self.plans[False])

    def start(self, tokens: int) -> None:
        if tokens > self.length:
            raise ValueError(f"the text has {tokens} tokens, at most {self.length} were announced")
        self.cache.start(tokens)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, first: int, own: bool) -> Tensor:
        self.cache.write(layer, k, v, first)
        end = first + len(q)
        if self.paged:
            paged = self.paged[own].of_layer[layer]
            batch = self.cache.paged(layer, len(q), end)
            paged.prune(q, summary=self.cache.summary(layer, paged, first, end), **batch)
            return paged.attend(q, **batch)  # type: ignore[no-any-return]
        shape = self.cache.shape
        o = bough.attention(
            q.transpose(0, 1)[None],
            self.cache.k[layer][None, :, :end],
            self.cache.v[layer][None, :, :end],
            json.dumps(self.plans[own]),
            layer=layer,
            rope_theta=shape.theta,
            trained_context=shape.trained_context,
        )
        return o[0].transpose(0, 1)  # type: ignore[no-any-return]
