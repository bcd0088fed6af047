"""SearchPlan: what the PyTorch search (search.py) does. JSON in; every field has a default, that of search A of the tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Mapping

SCORES = ("descent", "exact", "mean", "minmax", "int8", "int4", "bit1")


@dataclass(frozen=True)
class Stage:
    chunk: int  # tokens
    keep: int = 0  # tokens that enter, at most; 0 in the first stage: all
    stride: int = 1  # rows a pooling group
    # How a chunk is scored. descent: as in the library. exact: its best key. mean: the best mean of its pieces. minmax: the best bound from
    # the least and greatest elements of its pieces. int8, int4, bit1: its best key of a copy with so many bits an element.
    score: str = "descent"
    rounds: int = 0  # of a descent, two keys each; 0: down to single keys
    piece: int = 0  # tokens that one mean or bound stands for; 0: the chunk


@dataclass(frozen=True)
class SearchPlan:
    sinks: int = 256
    window: int = 1024
    stages: tuple[Stage, ...] = (
        Stage(64, 0, 16, "mean", piece=8),
        Stage(16, 32768, 4, rounds=1),
        Stage(8, 8192, 1, rounds=1),
    )
    k: int = 2048
    first: int = 3  # layers whose search numbers candidates ("chunk-indexed"); the others compare all at one distance
    k_layers: tuple[tuple[int, int, int], ...] = ((0, 3, 4096),)  # (begin, end, k): k of layers begin to end - 1
    lists: str = "layer"  # or "kv_head"
    reduce: str = "max"  # or "mass": log of the sum of exponentials over the keys that were probed
    share: int = 1  # neighbouring blocks of 64 rows that search together
    reuse: int = 1  # layers after `first` that take one search
    tail: int = 64  # rows of a question that select for themselves; 0: none

    def k_of(self, layer: int) -> int:
        return next((k for begin, end, k in self.k_layers if begin <= layer < end), self.k)

    @property
    def chunk(self) -> int:
        return self.stages[-1].chunk

    @property
    def scan_window(self) -> int:
        return max(0, self.window - self.stages[0].chunk)

    def searches(self, layer: int) -> bool:
        """Whether a layer has a search of its own."""
        return layer <= self.first or (layer - self.first) % self.reuse == 0


def check(p: SearchPlan) -> SearchPlan:
    """Raises ValueError."""

    def must(good: bool, sentence: str) -> None:
        if not good:
            raise ValueError(sentence)

    must(1 <= len(p.stages) <= 4, f"there are {len(p.stages)} stages, there must be 1 to 4")
    must(p.lists in ("layer", "kv_head"), f"lists is {p.lists!r}, it must be 'layer' or 'kv_head'")
    must(p.reduce in ("max", "mass"), f"reduce is {p.reduce!r}, it must be 'max' or 'mass'")
    must(p.share in (1, 2, 4, 8), f"share is {p.share}, it must be 1, 2, 4 or 8")
    must(p.share == 1 or p.lists == "layer", f"share is {p.share}, it must be 1 where lists is 'kv_head'")
    must(p.reuse >= 1, f"reuse is {p.reuse}, it must be 1 or more")
    must(p.sinks % 64 == 0, f"sinks is {p.sinks}, it must be a multiple of 64")
    must(p.window >= 2 * p.stages[0].chunk, f"window is {p.window}, it must be twice the first chunk or more")
    for k in (p.k, *(k for _, _, k in p.k_layers)):
        must(k >= 512 and k % 512 == 0, f"k is {k}, it must be a multiple of 512")
    before = 1 << 30
    for i, s in enumerate(p.stages):
        name = f"stages[{i}]"
        must(
            s.chunk & (s.chunk - 1) == 0 and 8 <= s.chunk <= 1024,
            f"{name}.chunk is {s.chunk}, a power of two from 8 on is needed",
        )
        must(s.chunk <= before, f"{name}.chunk is {s.chunk}, it must be at most the {before} of the stage before")
        must(
            i == 0 or s.keep >= p.k and s.keep % before == 0,
            f"{name}.keep is {s.keep}, k or more in whole chunks is needed",
        )
        must(
            64 * p.share % s.stride == 0,
            f"{name}.stride is {s.stride}, it must divide the {64 * p.share} rows of a search",
        )
        must(s.score in SCORES, f"{name}.score is {s.score!r}, it must be one of {', '.join(SCORES)}")
        must(s.piece == 0 or s.chunk % s.piece == 0, f"{name}.piece is {s.piece}, it must divide the chunk")
        must(
            s.score != "minmax" or p.first == 0,
            f"{name}.score is 'minmax', then first must be 0: bounds cannot be turned",
        )
        before = s.chunk
    return p


def search_plan(fields: Mapping[str, Any]) -> SearchPlan:
    """From JSON's objects. Raises ValueError and TypeError (an unknown field)."""
    given = dict(fields)
    if "stages" in given:
        given["stages"] = tuple(Stage(**s) for s in given["stages"])
    if "k_layers" in given:
        given["k_layers"] = tuple((int(a), int(b), int(k)) for a, b, k in given["k_layers"])
    return check(replace(SearchPlan(), **given))


def parse_search(text: str) -> SearchPlan:
    return search_plan(json.loads(text))
