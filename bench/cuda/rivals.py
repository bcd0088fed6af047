"""Dense attention of FlashInfer and cuDNN on the shapes of paged_bench: python3 rivals.py [decode] [batch] [prefill]

One layer, 32 query heads, 8 KV heads, head dim 128, bf16, batch 1, in a CUDA graph over layers with caches of their own. A rival that is
not installed is said to be missing. BOUGH_BENCH_LENGTHS=32768,... chooses lengths.
"""
import os
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

try:
    import flashinfer
except ImportError:
    flashinfer = None

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 64


def lengths():
    text = os.environ.get("BOUGH_BENCH_LENGTHS", "32768,131072,524288,1048576")
    return [int(x) for x in text.split(",")]


def random(*shape):
    return torch.empty(shape, dtype=torch.bfloat16, device="cuda").uniform_(-1, 1)


def time_graph(work, runs):
    """Best and median milliseconds of `work`, captured once."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    times.sort()
    return times[0], times[len(times) // 2]


def flashinfer_decode(tokens, layers, sequences):
    pages = (tokens + PAGE - 1) // PAGE
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, "HND", use_cuda_graph=True, use_tensor_cores=True,
        paged_kv_indptr_buffer=torch.empty(sequences + 1, dtype=torch.int32, device="cuda"),
        paged_kv_indices_buffer=torch.empty(pages * sequences, dtype=torch.int32, device="cuda"),
        paged_kv_last_page_len_buffer=torch.empty(sequences, dtype=torch.int32, device="cuda"))
    start = torch.arange(sequences + 1, dtype=torch.int32) * pages
    wrapper.plan(start, torch.randperm(pages * sequences).int(), torch.full((sequences,), tokens - (pages - 1) * PAGE, dtype=torch.int32),
                 HEADS, KV_HEADS, DIM, PAGE, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    q = random(sequences, HEADS, DIM)
    caches = [random(pages * sequences, 2, KV_HEADS, PAGE, DIM) for _ in range(layers)]
    best, median = time_graph(lambda: [wrapper.run(q, cache) for cache in caches], 20)
    return best / layers, median / layers


def cudnn_decode(tokens, layers):
    q = random(1, HEADS, 1, DIM)
    caches = [(random(1, KV_HEADS, tokens, DIM), random(1, KV_HEADS, tokens, DIM)) for _ in range(layers)]
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        best, median = time_graph(lambda: [scaled_dot_product_attention(q, k, v, enable_gqa=True) for k, v in caches], 20)
    return best / layers, median / layers


def report(what, work):
    try:
        best, median = work()
        print(f"{what}: {best:.4f} ms ({median:.4f})", flush=True)
    except (RuntimeError, ValueError) as error:
        print(f"{what}: failed, {str(error).splitlines()[0]}", flush=True)
    torch.cuda.empty_cache()


def decode():
    for tokens in lengths():
        if flashinfer:
            report(f"decode, FlashInfer dense, {tokens}", lambda: flashinfer_decode(tokens, 8, 1))
        report(f"decode, cuDNN dense, {tokens}", lambda: cudnn_decode(tokens, 8))


def batch():
    if flashinfer:
        report("decode, FlashInfer dense, 32 texts of 131072", lambda: flashinfer_decode(131072, 1, 32))


def prefill():
    rows = 8192
    for tokens in lengths():
        q, k, v = random(rows, HEADS, DIM), random(tokens, KV_HEADS, DIM), random(tokens, KV_HEADS, DIM)
        if flashinfer:
            work = lambda: flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True, backend="fa3")
            report(f"prefill, FlashInfer FA3 dense, {rows} queries at {tokens}", lambda: time_graph(work, 5))


def main():
    if not flashinfer:
        print("FlashInfer is not installed")
    parts = {"decode": decode, "batch": batch, "prefill": prefill}
    for part in sys.argv[1:] or parts:
        if part not in parts:
            sys.exit(f"unknown part '{part}'; known: {', '.join(parts)}")
        parts[part]()


if __name__ == "__main__":
    main()
