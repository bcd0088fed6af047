"""Decode of a Transformers model over a long prompt, tokens a second: python3 transformers_bench.py [--layers 4] [--tokens 130816]

A random model of Llama-3.1-8B's shape with few layers, bf16, batch 1, eager. The prompt is random keys and values put into the cache, so
that nothing is read. Transformers' own attention (sdpa over a static cache), Bough in one call a step (static cache: every stage at every
step), and Bough over its own cache, which goes by the plan's refresh schedule, in both modes. Needs torch, transformers and bough.
"""

import argparse
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import bough.transformers
from bough.transformers import BoughCache

WARM = 16  # steps, a whole cycle of the schedule


def model_of(layers):
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def fill(cache, layers, tokens):
    """Random keys and values for `tokens` tokens in every layer."""
    for i in range(layers):
        k, v = (torch.randn((1, 8, tokens, 128), dtype=torch.bfloat16, device="cuda") for _ in range(2))
        cache.update(k, v, i)
        if isinstance(cache, BoughCache):
            cache.layers[i].store([0])
    return cache


@torch.inference_mode()
def seconds_a_step(model, cache, tokens, steps):
    layers = model.config.num_hidden_layers
    fill(cache, layers, tokens)
    token = torch.full((1, 1), 7, device="cuda")
    for step in range(WARM + steps):
        if step == WARM:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps


def main():
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--layers", type=int, default=4)
    parse.add_argument("--tokens", type=int, default=131072 - 256, help="of the prompt")
    parse.add_argument("--steps", type=int, default=96, help="that are timed; mode rotated has room for 131072 tokens in all")
    parse.add_argument("--plan", default="default")
    args = parse.parse_args()
    model = model_of(args.layers)
    room = args.tokens + WARM + args.steps

    def static():
        return StaticCache(config=model.config, max_cache_len=room)

    def ours():
        return BoughCache(model, max_length=room)

    rows = [("sdpa, static cache", None, static)]
    for extend in (False, True):
        if extend or room <= 131072:
            mode = "extend" if extend else "rotated"
            rows.append((f"bough {mode}, one call a step", extend, static))
            rows.append((f"bough {mode}, its own cache", extend, ours))
    name = torch.cuda.get_device_name()
    print(f"{name}, transformers {transformers.__version__}, torch {torch.__version__}; plan {args.plan}")
    print(f"{args.layers} layers, {args.tokens} tokens, {args.steps} steps")
    for what, extend, cache in rows:
        if extend is not None:
            bough.transformers.enable(model, args.plan, extend=extend)
        seconds = seconds_a_step(model, cache(), args.tokens, args.steps)
        print(f"{what:32} {1e3 * seconds:8.2f} ms a step {1 / seconds:8.1f} tokens/s", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
