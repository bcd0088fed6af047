"""A fixed list of searches by importance, each beside its cost: python3 -m quality.explore --out results.jsonl --budget 500

--list prints the cells and what they cost, and runs nothing; --only TEXT keeps the cells whose name has it.
"""

from __future__ import annotations

import argparse
from typing import Any

from .cost import attention_tflop, search_tflop
from .lab import Book, Lab, Task, Way, run_all
from .llama import Shape
from .run import common

DEFAULT_MODEL = Shape(30, 9, 3, 64, 1e5, 1e-5, 8192)
LONG = 131072


def stages(*each: tuple[Any, ...]) -> list[dict[str, Any]]:
    """(chunk, keep, stride, options) of each stage."""
    return [{"chunk": s[0], "keep": s[1], "stride": s[2], **(s[3] if len(s) > 3 else {})} for s in each]


def three(
    a: int = 4, b: int = 4, c: int = 1, first: dict[str, Any] | None = None, rounds: int = 0
) -> list[dict[str, Any]]:
    """64/16/8 with these strides; options of the first stage; a limit of rounds in all."""
    later = {"rounds": rounds}
    return stages((64, 0, a, {**later, **(first or {})}), (16, 32768, b, later), (8, 8192, c, later))


def mean(piece: int) -> dict[str, Any]:
    return {"score": "mean", "piece": piece}


def searches() -> list[Way]:
    """What peers of the default search there are, the likeliest gains first."""

    def way(name: str, **fields: Any) -> Way:
        return Way(name, search=fields)

    exact, int4, bit1 = ({"score": s} for s in ("exact", "int4", "bit1"))
    cheap = dict(stages=three(16, 16, 4))
    return [
        way("torch default"),
        way("stride 16/16/4", **cheap),
        way("mean 8, 16/16/4", stages=three(16, 16, 4, mean(8))),
        way("1 round, 16/16/4", stages=three(16, 16, 4, rounds=1)),
        way("exact 8", stages=stages((8, 0, 1, exact))),
        way("two stages mean 8 + exact 8, 16/4", stages=stages((64, 0, 16, mean(8)), (8, 8192, 4, exact))),
        way("share 4, 16/16/16", stages=three(16, 16, 16), share=4),
        way("stride 64/64/16", stages=three(64, 64, 16)),
        way("int4 scan of 8, stride 16", stages=stages((8, 0, 16, int4))),
        way("bit1 scan 64, 16/16/4", stages=three(16, 16, 4, bit1)),
        way("reuse 2, 16/16/4", **cheap, reuse=2),
        way("mean 16, 16/16/4", stages=three(16, 16, 4, mean(16))),
        way("mean 4, 16/16/4", stages=three(16, 16, 4, mean(4))),
        way("mass, 16/16/4", **cheap, reduce="mass"),
        way("1 round in stage 0", stages=three(first={"rounds": 1})),
        way("2 rounds in stage 0, 16/16/4", stages=three(16, 16, 4, {"rounds": 2})),
        way("share 2, 16/16/4", **cheap, share=2),
        way("reuse 4, 16/16/4", **cheap, reuse=4),
        way("minmax 8, 16/16/4", stages=three(16, 16, 4, {"score": "minmax", "piece": 8}), first=0),
        way("k 1024 after layer 3, 16/16/4", **cheap, k=1024),
        way("k 2048 in all, 16/16/4", **cheap, k_layers=[]),
        way("no chunk index, 16/16/4", **cheap, first=0),
        way("k 4096 in all, 16/16/4", **cheap, k=4096),
        way("mean 8 + share 4, 16/16/16", stages=three(16, 16, 16, mean(8)), share=4),
        way("int4 scan 64, 64/16/4", stages=three(64, 16, 4, int4)),
        way("int8 scan 64, 16/16/4", stages=three(16, 16, 4, {"score": "int8"})),
        way("mean mass 8, 16/16/4", stages=three(16, 16, 4, mean(8)), reduce="mass"),
        way("exact 8, mean of 4 rows", stages=stages((8, 0, 4, exact))),
        way("mean 8 in 2 stages, 16/16", stages=stages((64, 0, 16, mean(8)), (8, 8192, 16))),
        way("kv_head, 16/16/4", **cheap, lists="kv_head"),
    ]


def plans() -> list[Way]:
    first = {"layers": 3, "k": 4096}
    coarse = [
        {"chunk": 256, "query_stride": 4},
        {"chunk": 32, "keep": 32768, "query_stride": 4},
        {"chunk": 8, "keep": 8192},
    ]
    strided = [
        {"chunk": 64, "query_stride": 16},
        {"chunk": 16, "keep": 32768, "query_stride": 16},
        {"chunk": 8, "keep": 8192, "query_stride": 4},
    ]
    return [
        Way("default", plan={"mode": "stages"}),
        Way("plan 16/16/4", plan={"stages": strided, "first": first, "refresh": [16, 8, 4]}),
        Way("3k", plan={"stages": coarse, "first": first, "refresh": [16, 8, 4]}),
    ]


def cells(trials: int, seed: int) -> list[tuple[Way, Task]]:
    """The most telling ones first."""
    passkey = Task("passkey", LONG, trials=trials, seed=seed)
    by_name = {way.name: way for way in searches()}
    out = [(way, passkey) for way in [*plans(), *searches()[:12]]]
    dense = Way("dense", plan={"mode": "dense"})
    asked = [
        "torch default",
        "exact 8",
        "mean 8, 16/16/4",
        "stride 16/16/4",
        "int4 scan of 8, stride 16",
        "kv_head, 16/16/4",
    ]
    some = [by_name[name] for name in asked]
    near, far = (Task("named", length, trials=2 * trials, seed=seed) for length in (8192, 32768))
    out += [(way, near) for way in [dense, plans()[0], *some]] + [(way, far) for way in [plans()[0], *some]]
    out += [(way, passkey) for way in searches()[12:]]
    loss = Task("ppl", 32768)
    out += [(way, loss) for way in [plans()[0], *some[:4]]]
    few = Task("named", 32768, trials=2 * trials, names=8, seed=seed)
    out += [(way, few) for way in [plans()[0], *some[:3]]]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--length", type=int, help="every cell at this length instead of its own")
    options = parser.parse_args()
    chosen = [cell for cell in cells(options.trials, options.seed) if options.only in f"{cell[0].name} | {cell[1]}"]
    if options.length:
        chosen = [(way, Task(t.name, options.length, t.text, t.trials, t.names, t.seed)) for way, t in chosen]
    if options.list:
        for way, task in chosen:
            plan = way.searched()
            parts = [] if plan is None else search_tflop(plan, DEFAULT_MODEL, task.length)
            attend = attention_tflop(plan, DEFAULT_MODEL, task.length)
            each = " ".join(f"{x:.1f}" for x in parts)
            print(
                f"{way.name:<36} {str(task):<24} {task.count:>3} trials, TFLOP each: search {sum(parts):6.1f} ({each}) attention {attend:.1f}"
            )
        return
    lab = Lab(options.folder, options.device, options.scores, options.model)
    run_all(lab, chosen, Book(options.out), options.budget, options.quiet)


if __name__ == "__main__":
    main()
