#!/usr/bin/env python3
"""Bough beside other engines on the same model and machine, one after the other: decode by depth, prefill by length, and the ratios.

Bough reads with its default plan and with its own dense one; llama.cpp the packaged file and, where its llama-quantize is built, a copy
in Q4_0, the format that it is fastest with. vLLM takes part if this Python has it; it reads no GGUF file on CPUs, so $BOUGH_VLLM_MODEL
names a folder with the same model. It computes in bf16, in f32 where the CPU has no such instructions: there that is 24 times as quick.
Bough and llama.cpp fill their cache with copies of what they have read; vLLM reads, which is quadratic: beyond --vllm-depth it is left
out.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

Column = dict[int, float]  # by depth or length; what was not measured is not there
STEPS = 32


def lines_of(command: Sequence[object]) -> list[str]:
    print("running", *command, file=sys.stderr)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench_rival.py: {command[0]} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.splitlines()


def joined(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)


def bough_ms(args: argparse.Namespace, what: str, sizes: Sequence[int], plan: str) -> Column:
    option = "--depths" if what == "decode" else "--lengths"
    command = [args.bough, "bench", "--json", "--what", what, option, joined(sizes), "--plan", plan, "-m", args.model]
    rows = [json.loads(line) for line in lines_of(command)]
    return {row["depth"]: row["ms"] for row in rows if row.get("what") == what}


def llama_rows(args: argparse.Namespace, model: Path, options: Sequence[object]) -> list[dict[str, float]]:
    bench = [
        args.llama / "llama-bench",
        "-m",
        model,
        "-t",
        len(os.sched_getaffinity(0)),
        "-fa",
        1,
        "-r",
        1,
        "-o",
        "json",
    ]
    rows: list[dict[str, float]] = json.loads("\n".join(lines_of([*bench, *options])))
    return rows


def llama_decode(args: argparse.Namespace, model: Path) -> Column:
    threads = len(os.sched_getaffinity(0))
    rows = [json.loads(line) for line in lines_of([args.llama_decode, model, threads, *args.depths])]
    return {int(row["depth"]): row["ms"] for row in rows}


def llama_prefill(args: argparse.Namespace, model: Path) -> Column:
    rows = llama_rows(args, model, ["-p", joined(args.lengths), "-n", 0, "--no-warmup"])
    return {int(row["n_prompt"]): row["avg_ns"] / 1e6 for row in rows}


class Vllm:
    def __init__(self, model: str, context: int) -> None:
        vllm = importlib.import_module("vllm")
        self.params = vllm.SamplingParams
        dtype = "bfloat16" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else "float32"
        # The share of the memory that it takes for its cache: of more than is free it refuses to start.
        self.engine = vllm.LLM(
            model=model, max_model_len=context, enable_prefix_caching=True, gpu_memory_utilization=0.4, dtype=dtype
        )

    def ms(self, first: int, length: int, steps: int) -> float:
        """Of a prompt of that length, another one for each `first`, and that many tokens after it."""
        prompt = {"prompt_token_ids": [first] + [100 + i % 1000 for i in range(length - 1)]}
        start = time.perf_counter()
        self.engine.generate([prompt], self.params(temperature=0, max_tokens=steps, ignore_eos=True), use_tqdm=False)
        return (time.perf_counter() - start) * 1000

    def decode(self, depth: int) -> float:
        one = [self.ms(50, max(1, depth), 1) for _ in range(2)][1]  # the first one reads, then the prefix is held
        return (self.ms(50, max(1, depth), STEPS + 1) - one) / STEPS

    def prefill(self, length: int) -> float:
        return self.ms(60 + length % 31, length, 1)


def vllm_columns(args: argparse.Namespace) -> Optional[tuple[Column, Column]]:
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed")
        return None
    model = os.environ.get("BOUGH_VLLM_MODEL")
    if not model:
        print("vLLM is left out: BOUGH_VLLM_MODEL names no folder with the model")
        return None
    depths = [depth for depth in args.depths if depth <= args.vllm_depth]
    engine = Vllm(model, max([*depths, *args.lengths]) + STEPS + 2)
    return {n: engine.decode(n) for n in depths}, {n: engine.prefill(n) for n in args.lengths}


def print_table(title: str, sizes: Sequence[int], columns: dict[str, Column], per: float) -> None:
    """The columns divided by `per`, then how many times as long as the first column the others are."""
    others = list(columns)[1:]
    print(f"\n{title:<20}", *(f"{name:>15}" for name in columns), *(f"{name + ' x':>17}" for name in others))
    for size in sizes:
        values = [column.get(size) for column in columns.values()]
        cells = [f"{value / per:>15.2f}" if value else f"{'-':>15}" for value in values]
        base = values[0]
        ratios = [f"{value / base:>17.2f}" if value and base else f"{'-':>17}" for value in values[1:]]
        print(f"{size:<20,}", *cells, *ratios)


def sizes(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bough", type=Path, required=True, help="the program")
    parser.add_argument("--llama", type=Path, required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--llama-decode", type=Path, required=True, help="the program of bench/llama_decode.cc")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--depths", type=sizes, default=[0, 2048, 8192, 32768, 131072], metavar="N,N", help="of decode")
    parser.add_argument("--lengths", type=sizes, metavar="N,N", help="of prefill: 512,8192, with --long also 32768")
    parser.add_argument("--vllm-depth", type=int, default=8192, metavar="N", help="largest depth of vLLM")
    parser.add_argument(
        "--long", action="store_true", help="prefill of 32,768 tokens too, a quarter of an hour for a rival"
    )
    args = parser.parse_args()
    args.lengths = args.lengths or [512, 8192] + ([32768] if args.long else [])

    decode = {f"bough {plan}": bough_ms(args, "decode", args.depths, plan) for plan in ("default", "dense")}
    prefill = {f"bough {plan}": bough_ms(args, "prefill", args.lengths, plan) for plan in ("default", "dense")}
    with tempfile.TemporaryDirectory() as folder:
        models = {"llama.cpp": args.model}
        quantise = args.llama / "llama-quantize"
        if quantise.exists():
            models["llama.cpp Q4_0"] = Path(folder) / "q4_0.gguf"
            lines_of([quantise, "--allow-requantize", args.model, models["llama.cpp Q4_0"], "Q4_0"])
        for name, model in models.items():
            decode[name] = llama_decode(args, model)
            prefill[name] = llama_prefill(args, model)
    vllm = vllm_columns(args)
    if vllm is not None:
        decode["vLLM"], prefill["vLLM"] = vllm
    print_table("decode, ms a token", args.depths, decode, 1)
    print_table("prefill, s", args.lengths, prefill, 1000)


if __name__ == "__main__":
    main()
