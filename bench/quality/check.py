"""Compares the ways that attention can go on the model's own queries and keys: python3 -m quality.check

On a GPU: PagedAttention's search A of the tables against the PyTorch search, lists in PagedAttention against plain PyTorch, Triton scores against
PyTorch's. Exit status 1 where they differ more than rounding explains.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Callable

import torch
from torch import Tensor

from .lab import Lab, Task, Way
from .lists import ListAttention
from .llama import Attention
from .probe import probe_torch
from .run import common
from .search_plan import search_plan
from .tables import A

SMALL_PLAN = {
    "sinks": 64,
    "window": 256,
    "stages": [
        {"chunk": 64, "query_stride": 4},
        {"chunk": 16, "keep": 1024, "query_stride": 4},
        {"chunk": 8, "keep": 1024},
    ],
    "k": 512,
    "row_k": 0,
    "first": {"layers": 3, "k": 1024},
    "refresh": [16, 8, 4],
}
SMALL_SEARCH = {
    "sinks": 64,
    "window": 256,
    "stages": [{"chunk": 64, "stride": 4}, {"chunk": 16, "keep": 1024, "stride": 4}, {"chunk": 8, "keep": 1024}],
    "k": 512,
    "k_layers": [[0, 3, 1024]],
}
ROWS_APART = 0.05  # share of rows that may differ by more than DIFFERENCE: where bf16 rounding picks other chunks
DIFFERENCE = 0.05  # of a row of o, relative


class Both:
    """An Attention that follows one way and measures how far another is from it on the same rows."""

    def __init__(self, one: Attention, other: Attention) -> None:
        self.one, self.other = one, other
        self.distances: list[Tensor] = []

    def start(self, tokens: int) -> None:
        self.one.start(tokens)
        self.other.start(tokens)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, first: int, own: bool) -> Tensor:
        o = self.one(layer, q, k, v, first, own)
        x = self.other(layer, q, k, v, first, own)
        apart = (o.float() - x.float()).norm(dim=-1) / o.float().norm(dim=-1).clamp(min=1e-6)
        self.distances.append(apart.flatten())
        return o


def compare(lab: Lab, name: str, one: Attention, other: Attention, length: int, tail: int) -> bool:
    both = Both(one, other)
    task = Task("passkey", length, trials=2)
    prompt = task.prompt(lab.words, 1)
    begin = time.monotonic()
    right, _, _ = lab.trial(both, tail, prompt)
    apart = torch.cat(both.distances)
    far = float((apart > DIFFERENCE).float().mean())
    good = far <= ROWS_APART and bool(torch.isfinite(apart).all())
    print(
        f"{name:<44} {length:>7} mean {float(apart.mean()):.5f} apart {100 * far:.2f}% answer {right}/5 "
        f"{time.monotonic() - begin:.1f} s {'ok' if good else 'DIFFERENT'}",
        flush=True,
    )
    return good


def check_probe(lab: Lab) -> bool:
    """Random rows and keys, turned or not, heads of 64 and 128 elements."""
    from .probe import Turn

    worst = 0.0
    device, dtype = lab.device, lab.model.dtype
    turn = Turn(64, 1e5, 8192, device)
    for m, d, turns, shared in (
        (48, 64, False, True),
        (12, 64, True, False),
        (192, 64, True, False),
        (3, 128, False, False),
    ):
        q, keys = torch.randn(7, 3, m, d, device=device).to(dtype), torch.randn(3, 5000, d, device=device).to(dtype)
        index = torch.randint(0, 5000, (1 if shared else 7, 1 if shared else 3, 777), device=device, dtype=torch.int32)
        at = torch.randint(0, 8000, (7, 1, 777), device=device, dtype=torch.int32) if turns else None
        wanted = probe_torch(q.float(), keys.float(), index, at, turn)
        worst = max(worst, float((lab.probe(q, keys, index, at, turn) - wanted).abs().max()))
    good = worst < 0.2  # products of about 8; keys that turn are rounded to bf16 in one of them
    print(f"scores of random keys: worst difference {worst:.4f} {'ok' if good else 'DIFFERENT'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument("--length", type=int, default=6144, help="of the small plan's text")
    parser.add_argument("--long", type=int, default=0, help="a length for search A of the tables too")
    options = parser.parse_args()
    lab = Lab(options.folder, options.device, options.scores, options.model)
    small = search_plan(SMALL_SEARCH)
    room = options.length + 16
    paged = lab.device.type == "cuda"

    def plan(fields: dict[str, object], length: int) -> Attention:
        return lab.attention(Way("", plan=fields), length)[0]

    def lists(through: bool, probe: Callable[..., Tensor]) -> Attention:
        return ListAttention(small, lab.cache, room, probe, through)

    one, other = plan(dict(SMALL_PLAN), room), lists(paged, lab.probe)
    good = [
        check_probe(lab),
        compare(lab, "the plan, searched by PyTorch", one, other, options.length, 64),
    ]
    if paged:
        one, other = lists(True, lab.probe), lists(False, probe_torch)
        good.append(compare(lab, "the same attended by PyTorch", one, other, options.length, 64))
    if options.long:
        one, other = (
            plan(dict(A), options.long + 16),
            lab.attention(Way("", search={}), options.long + 16)[0],
        )
        good.append(compare(lab, "A, searched by PyTorch", one, other, options.long, 64))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
