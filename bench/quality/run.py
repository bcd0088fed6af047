"""Compares plans: python3 -m quality.run --plan default --plan plan.json --task passkey --length 131072 --trials 10 --out results.jsonl"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from .attention import read_plan
from .lab import Book, Lab, Task, Way, run_all


def common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path("build/quality"), help="what quality.prepare wrote")
    parser.add_argument("--model", type=Path, help="GGUF file; without it the parts in the folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scores", choices=("triton", "torch"), default="triton", help="how keys are scored on a GPU")
    parser.add_argument("--out", type=Path, help="results are appended here; what it has already is not run again")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds; no trial begins that would end later")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no line a trial")


def named(spec: str) -> tuple[str, str]:
    """NAME=SPEC or SPEC: a name for the table, and the rest."""
    name, equals, rest = spec.partition("=")
    if equals and "{" not in name and "/" not in name:
        return name, rest
    return (os.path.basename(spec) if "{" not in spec else spec), spec


def read_search(spec: str) -> dict[str, object]:
    return dict(json.loads(Path(spec).read_text() if not spec.lstrip().startswith("{") else spec))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument(
        "--plan", action="append", default=[], help="[NAME=]default, dense, hip, streaming, JSON or a file"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="[NAME=]JSON or a file: a search in PyTorch (search_plan.py)"
    )
    parser.add_argument(
        "--task",
        action="append",
        choices=("passkey", "named", "every-name", "ppl", "ppl-decoded"),
        help="several times; without it passkey",
    )
    parser.add_argument("--length", default="8192", help="tokens, several with commas")
    parser.add_argument("--text", choices=("book", "filler"), default="book")
    parser.add_argument("--names", default="32", help="named keys, several numbers with commas")
    options = parser.parse_args()
    ways = [Way(name, plan=read_plan(spec)) for name, spec in map(named, options.plan)]
    ways += [Way(name, search=read_search(spec)) for name, spec in map(named, options.search)]
    cells = []
    for length in map(int, options.length.split(",")):
        for task in options.task or ["passkey"]:
            for names in map(int, options.names.split(",")) if "name" in task else [0]:
                for way in ways:
                    cells.append((way, Task(task, length, options.text, options.trials, names, options.seed)))
    lab = Lab(options.folder, options.device, options.scores, options.model)
    run_all(lab, cells, Book(options.out), options.budget, options.quiet)


if __name__ == "__main__":
    main()
