"""The tables of docs/quality.md: python3 -m quality.tables searches rows names filler --out results.jsonl --budget 500

--list prints the cells and runs nothing; --only TEXT keeps the cells whose name has it.
"""

from __future__ import annotations

import argparse
from typing import Any

from .lab import Book, Lab, Task, Way, run_all
from .run import common

Plan = dict[str, Any]
TABLES = ("searches", "rows", "names", "filler", "layers", "delta", "far", "own", "text", "lists", "means")
SHORT, MIDDLE, LONG = 8192, 32768, 131072
MEANS = {"piece": 8}
TWO = {"rounds": 1}  # keys of a chunk


def stages(*each: tuple[int, int, int, dict[str, int]], **fields: Any) -> Plan:
    """(chunk, keep, stride, how a chunk is scored) of each stage."""
    made = [
        {"chunk": chunk, "query_stride": stride, **({"keep": keep} if keep else {}), **how}
        for chunk, keep, stride, how in each
    ]
    return {"mode": "stages", "stages": made, "refresh": [16, 8, 4][: len(made)], "k": 2048, "row_k": 0, **fields}


def by_means(strides: tuple[int, int, int] = (16, 4, 1), keep: tuple[int, int] = (32768, 8192), **fields: Any) -> Plan:
    """Search A of the tables."""
    a, b, c = strides
    return stages((64, 0, a, MEANS), (16, keep[0], b, TWO), (8, keep[1], c, TWO), **fields)


def then_every_key(keep: int, stride: int, first: int = 16, **fields: Any) -> Plan:
    return stages((64, 0, first, MEANS), (8, keep, stride, {"piece": 1}), **fields)


def every_key(stride: int = 1, **fields: Any) -> Plan:
    return stages((8, 0, stride, {"piece": 1}), **fields)


WIDE: Plan = {"k": 4096}
A = by_means()
DEFAULT: Plan = {"mode": "stages"}
# A, and for rows that select for themselves the means of 32,768 keys and every key of 8,192: what layers, delta and far begin from.
B = stages((64, 0, 16, MEANS), (16, 32768, 4, {**TWO, "row_piece": 8}), (8, 8192, 1, {**TWO, "row_piece": 1}))
DENSE: Plan = {"mode": "dense"}

SEARCHES: dict[str, Plan] = {
    "dense": DENSE,
    "streaming": {"mode": "streaming"},
    "default": DEFAULT,
    "B": B,
    "A": A,
    "A strided": by_means(pool="strided"),
    "A 16/16/1": by_means((16, 16, 1)),
    "A 16/8/2 of 65536, 16384": by_means((16, 8, 2), (65536, 16384)),
    "A of 65536, 8192": by_means(keep=(65536, 8192)),
    "A of 49152, 12288": by_means(keep=(49152, 12288)),
    "A of 65536, 16384": by_means(keep=(65536, 16384)),
    "A 4/4/1": by_means((4, 4, 1)),
    "A 16/1/1": by_means((16, 1, 1)),
    "A k 4096": by_means(**WIDE),
    "descent": stages((64, 0, 4, {}), (16, 32768, 4, {}), (8, 8192, 1, {})),
    "means, every key 16/4": then_every_key(8192, 4),
    "means, every key 16/4, KV heads": then_every_key(8192, 4, lists="kv_head"),
    "means, every key 16/1": then_every_key(8192, 1),
    "descents of 2, 1, 1 rounds": stages((64, 0, 16, {"rounds": 2}), (16, 32768, 4, TWO), (8, 8192, 1, TWO)),
    "means alone": stages((8, 0, 1, MEANS)),
    "every key": every_key(),
    "every key 4": every_key(4),
    "every key 16": every_key(16),
}

# The second plan is that of rows that select for themselves.
ROWS: dict[str, tuple[Plan, Plan]] = {
    "A, A": (A, A),
    "every key, A": (every_key(), A),
    "A, every key": (A, every_key()),
    "every key, every key": (every_key(), every_key()),
    "A, every key of 8192": (A, then_every_key(8192, 1, 1)),
    "A, two keys of 32768, every key": (
        A,
        stages((64, 0, 1, MEANS), (16, 32768, 1, TWO), (8, 8192, 1, {"piece": 1})),
    ),
    "B": (B, B),
    "default": (DEFAULT, DEFAULT),
    "A, every key of 32768": (A, then_every_key(32768, 1, 1)),
    "A, every key, k 4096": (by_means(**WIDE), every_key(**WIDE)),
    "dense": (DENSE, DENSE),
}


# Every key of 32,768 in some layers of the text's blocks; rows that select for themselves follow B.
FINE = stages((64, 0, 16, MEANS), (16, 32768, 4, TWO), (8, 32768, 1, {"piece": 1}))["stages"]
GROUPS = ((0, 6), (6, 12), (12, 18), (18, 24), (24, 30))


def fine_in(*layers: int) -> Plan:
    return {**B, "layers": [{"layers": list(layers), "stages": FINE}], "own": B}


LAYERS: dict[str, Plan] = {
    "B": B,
    "every key in all layers": {**B, "stages": FINE, "own": B},
    **{f"every key in layers {a} to {b - 1}": fine_in(*range(a, b)) for a, b in GROUPS},
}


def for_rows(keep: tuple[int, int], **fields: Any) -> Plan:
    """Of rows that select for themselves: means choose keep[0], means keep[1], of which every key is scored."""
    return stages((64, 0, 1, MEANS), (16, keep[0], 1, MEANS), (8, keep[1], 1, {"piece": 1}), **fields)


# Whether rows by themselves miss what lies far away: every key for them, and wider lists.
FAR: dict[str, Plan] = {
    "B": B,
    "A, every key": {**A, "own": every_key()},
    **{
        f"A, {a} {b}": {**A, "own": for_rows((a, b))}
        for a, b in ((65536, 8192), (32768, 16384), (65536, 16384), (131072, 32768))
    },
    "A of 65536 16384, B": {**by_means(keep=(65536, 16384)), "own": B},
    "A of 65536 16384, 65536 16384": {**by_means(keep=(65536, 16384)), "own": for_rows((65536, 16384))},
}


# How many keys rows by themselves select, and of how many; blocks of the text follow A.
OWN: dict[str, Plan] = {
    **{f"A, k {k}": {**A, "own": for_rows((65536, 16384), row_k=k)} for k in (2048, 1024, 512, 256, 128, 64)},
    **{f"A, 131072 32768, k {k}": {**A, "own": for_rows((131072, 32768), row_k=k)} for k in (1024, 256)},
    "A, 32768 8192, k 1024": {**A, "own": for_rows((32768, 8192), row_k=1024)},
    **{f"A, every key, k {k}": {**A, "own": every_key(row_k=k)} for k in (2048, 256)},
}
# Every key for all rows: what a selection of that size can reach.
EXACT: dict[str, Plan] = {
    f"every key, k {k}": {**every_key(), "own": every_key(row_k=k)} for k in (2048, 1024, 512, 256)
}
# How many keys blocks of the text select, with several searches for rows by themselves.
FINE_TEXT = stages((64, 0, 16, MEANS), (16, 32768, 4, TWO), (8, 8192, 1, {"piece": 1}))
TEXTS: dict[str, Plan] = {
    **{f"k {k}": by_means(k=k) for k in (2048, 1024, 512, 256)},
    "every key of 8192": FINE_TEXT,
    "every key, k 512": every_key(k=512),
}
ASKS: dict[str, Plan] = {
    "k 512": for_rows((65536, 16384), row_k=512),
    "k 256": for_rows((65536, 16384), row_k=256),
    **{f"131072 32768, k {k}": for_rows((131072, 32768), row_k=k) for k in (512, 384, 256)},
    "every key, k 512": every_key(row_k=512),
    "every key, k 256": every_key(row_k=256),
}
TEXT: dict[str, Plan] = {f"{a}; {b}": {**text, "own": asks} for a, text in TEXTS.items() for b, asks in ASKS.items()}
# `default` with other lists for the rows that select for themselves.
LISTS: dict[str, Plan] = {
    f"{a} {b}": {**by_means(k=512), "own": for_rows((a, b), row_k=512)}
    for a, b in ((65536, 16384), (32768, 16384), (65536, 8192), (32768, 8192))
}
# Blocks of the text by means in the second stage too: (chunk, keep, stride) of it, and what the third keeps.
BY_MEANS: dict[str, Plan] = {
    f"means of {keep} in {chunk}s, stride {stride}, {last}": {
        **stages((64, 0, 16, MEANS), (chunk, keep, stride, MEANS), (8, last, 1, TWO), k=512),
        "own": for_rows((65536, 16384), row_k=512),
    }
    for chunk, keep, stride, last in (
        (16, 32768, 4, 8192),
        (16, 65536, 4, 8192),
        (8, 65536, 4, 8192),
        (8, 65536, 1, 8192),
        (16, 65536, 4, 16384),
    )
}


def named(length: int, names: int, trials: int) -> Task:
    return Task("named", length, trials=trials, names=names)


def every_name(length: int, names: int, texts: int) -> Task:
    return Task("every-name", length, trials=texts, names=names)


def cells(table: str) -> list[tuple[Way, Task]]:
    """Raises KeyError."""
    if table == "searches":
        tasks = [Task("ppl", n) for n in (SHORT, MIDDLE, LONG)]
        tasks += [named(SHORT, 8, 32), named(SHORT, 32, 32), named(LONG, 32, 32), Task("passkey", LONG, trials=20)]
        tasks += [Task("passkey", 524288), Task("passkey", 990000)]
        ways = [Way(name, plan=plan) for name, plan in SEARCHES.items()]
        return [(way, task) for task in tasks for way in ways if way.name != "dense" or task.length <= MIDDLE]
    if table == "rows":
        ways = [Way(name, plan={**plan, "own": own}) for name, (plan, own) in ROWS.items()]
        return [
            (way, named(n, 32, 32)) for n in (SHORT, MIDDLE, LONG) for way in ways if way.name != "dense" or n == SHORT
        ]
    if table == "names":
        exact = Way("every key, k 512", plan={**every_key(k=512), "own": every_key(row_k=512)})
        ways = [Way(name, plan=SEARCHES[name]) for name in ("default", "dense")] + [exact]
        texts = {8: 32, 32: 16, 128: 4}
        return [
            (w, every_name(n, names, texts[names] // (2 if n == LONG else 1)))
            for names in texts
            for n in (SHORT, MIDDLE, LONG)
            for w in ways
            if w.name != "dense" or n == SHORT
        ]
    if table == "filler":
        trials = {LONG: 20, 524288: 10, 990000: 10}
        return [(Way("default", plan=DEFAULT), Task("passkey", n, "filler", t)) for n, t in trials.items()]
    if table == "layers":
        return [(Way(name, plan=plan), named(MIDDLE, 32, 64)) for name, plan in LAYERS.items()]
    if table == "delta":
        ways = [
            Way(f"delta {every}" if every else "B", plan={**B, **({"delta": every} if every else {})})
            for every in (0, 64, 16)
        ]
        tasks = [Task("ppl", n) for n in (SHORT, MIDDLE, LONG)]
        tasks += [named(SHORT, 32, 32), named(MIDDLE, 32, 32)]
        return [(way, task) for task in tasks for way in ways]
    if table == "far":
        tasks = [named(MIDDLE, 32, 64), Task("passkey", 524288), Task("passkey", 990000)]
        return [(Way(name, plan=plan), task) for task in tasks for name, plan in FAR.items()]
    if table == "lists":
        tasks = [every_name(MIDDLE, 32, 16), every_name(LONG, 32, 8), every_name(LONG, 8, 16)]
        tasks += [Task("passkey", LONG, trials=20), Task("passkey", 524288), Task("passkey", 990000)]
        return [(Way(name, plan=plan), task) for task in tasks for name, plan in LISTS.items()]
    if table == "means":
        tasks = [Task("ppl", n) for n in (SHORT, MIDDLE, LONG)] + [every_name(MIDDLE, 32, 16), every_name(LONG, 32, 8)]
        tasks += [Task("passkey", 524288, trials=5), Task("passkey", 990000, trials=5)]
        return [(Way(name, plan=plan), task) for task in tasks for name, plan in BY_MEANS.items()]
    if table in ("own", "text"):
        plans = {**OWN, **EXACT} if table == "own" else TEXT
        tasks = [every_name(SHORT, 32, 16), every_name(MIDDLE, 32, 16), every_name(LONG, 32, 8)]
        tasks += [every_name(MIDDLE, 8, 32), every_name(LONG, 8, 16)]
        made = [(Way(name, plan=plan), task) for task in tasks for name, plan in plans.items()]
        if table == "own":
            far = [Task("passkey", 524288), Task("passkey", 990000)]
            far += [Task("ppl-decoded", n, trials=t) for n, t in ((SHORT, 8), (MIDDLE, 8), (LONG, 4), (990000, 1))]
            return made + [(Way(name, plan=plan), task) for task in far for name, plan in OWN.items()]
        made += [(Way(name, plan=plan), Task("ppl", n)) for n in (SHORT, MIDDLE, LONG) for name, plan in TEXTS.items()]
        asked = (f"k 512; {name}" for name in ASKS if not name.startswith("every"))
        return made + [(Way(name, plan=TEXT[name]), Task("passkey", 990000)) for name in asked]
    raise KeyError(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument("table", nargs="+", choices=TABLES)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    chosen = [cell for table in options.table for cell in cells(table)]
    chosen = [cell for cell in chosen if options.only in f"{cell[0].name} | {cell[1]}"]
    if options.list:
        for way, task in chosen:
            print(f"{way.name:<34} {str(task):<24} {task.count:>3} trials")
        return
    lab = Lab(options.folder, options.device, options.scores, options.model)
    run_all(lab, chosen, Book(options.out), options.budget, options.quiet)


if __name__ == "__main__":
    main()
