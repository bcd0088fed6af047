"""attention(): causal attention of the last rows of long texts, in one call, on CUDA devices and CPUs."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from ._config import DEFAULT_TRAINED_CONTEXT, Config, Plan, check_pairs, plan_text, rope_frequencies
from ._dlpack import is_torch
from ._library import BoughError


def attention(
    q: Any,
    k: Any,
    v: Any,
    plan: Plan = "default",
    *,
    layer: int = 0,
    rope_theta: Optional[float] = None,
    rope_dims: Optional[int] = None,
    frequencies: Optional[Sequence[float]] = None,
    rope_pairs: str = "halves",
    rope_magnitude: float = 1.0,
    scale: Optional[float] = None,
    softcap: float = 0.0,
    sliding_window: int = 0,
    keys_rotated: bool = False,
    trained_context: Optional[int] = None,
    lengths: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
    sink_logits: Any = None,
    return_lse: bool = False,
) -> Any:
    """Causal attention of q [b, hq, tq, d] to k and v [b, hkv, tk, d]: o [b, hq, tq, d] of q's type.

    The last tq of the tk tokens are q's: row i sees tokens 0 to tk - tq + i, or, where the text is longer than the plan's sinks, window
    and k together, the first `sinks`, about the last `window` and what the plan's stages chose for its block of 64 rows, with positions by
    rank in that context or as the plan says. hq is a multiple of hkv, at most 16 times as many; d is 64, 96, 128 or 256.

    q, k, v: arrays of PyTorch or CuPy on a CUDA device (bfloat16 or float16; k and v of float8_e4m3fn or int8 too), or of PyTorch or NumPy
    on the CPU (float32, float16; PyTorch: bfloat16, and k and v of float8_e4m3fn or int8), of any strides but for the last dimension,
    which is contiguous; on CUDA the others are multiples of 8 elements. There is no gradient.

    plan: a preset's name, JSON, a file or a mapping (docs/plan.md), of it `layer`; text where torch.compile traces the call. RoPE: `rope_theta`, with `rope_dims` of the d elements
    turned, or `frequencies` [dims / 2] in radians a position; q and k come unturned then. Neither: nothing turns. `keys_rotated`: q and k
    come turned at their own positions; texts are at most `trained_context` tokens long (None: 131072), to which the plan is fitted.
    `rope_pairs`: "halves" or "interleaved". scale of q.k: None for 1 / sqrt(d). softcap c > 0: a score s becomes c tanh(s / c).
    sliding_window n > 0: a row sees its own token and the n - 1 before it, nothing else.

    lengths [b] int32: tokens of each text, from tq to tk; its rows are its last tq ones. k_scale, v_scale float32: one number or
    [b, hkv, tk]; value = stored * scale. sink_logits [hq] float32: of each head a logit that takes part in the softmax and has no value.
    return_lse: (o, lse), lse [b, hq, tq] float32, the natural log of the sum of exponentials.

    What a shape needs on a device (tables, scratch) is kept for the next call of about that shape, see clear_cache(). To be captured in a
    CUDA graph, a shape has to be called once before. Raises BoughError, a ValueError that names the value and the limit.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if len(x.shape) != 4:
            raise BoughError(f"{name} has {len(x.shape)} dimensions, it must have 4: batch, heads, tokens, head dim")
    if tuple(k.shape) != tuple(v.shape):
        raise BoughError(f"v has shape {list(v.shape)}, it must be k's, {list(k.shape)}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise BoughError(f"k has shape {list(k.shape)}, batch and head dim must be those of q, {list(q.shape)}")
    if q.shape[2] < 1 or q.shape[2] > k.shape[2]:
        raise BoughError(f"q has {q.shape[2]} rows, it must have 1 to the number of tokens, {k.shape[2]}")
    turns = rope_frequencies(q.shape[3], rope_theta, rope_dims, frequencies)
    trained = DEFAULT_TRAINED_CONTEXT if trained_context is None else trained_context
    if is_torch(q):
        from ._torch_op import attention_op

        o, lse = attention_op(
            q,
            k,
            v,
            plan_text(plan),
            layer,
            list(turns),
            check_pairs(rope_pairs),
            float(rope_magnitude),
            0.0 if scale is None else float(scale),
            float(softcap),
            sliding_window,
            keys_rotated,
            trained,
            lengths,
            k_scale,
            v_scale,
            sink_logits,
        )
        return (o, lse) if return_lse else o
    config = Config(
        plan=plan_text(plan),
        layer=layer,
        heads=q.shape[1],
        kv_heads=k.shape[1],
        head_dim=q.shape[3],
        frequencies=turns,
        rope_pairs=check_pairs(rope_pairs),
        rope_magnitude=rope_magnitude,
        scale=0.0 if scale is None else scale,
        softcap=softcap,
        sliding_window=sliding_window,
        keys_rotated=keys_rotated,
        trained_context=trained,
    )
    on_cuda = int(q.__dlpack_device__()[0]) in (2, 13)
    if on_cuda:
        from ._cuda import attend_cuda as run
    else:
        from ._cpu import attend_numpy as run
    o, lse = run(config, q, k, v, lengths, k_scale, v_scale, sink_logits)
    return (o, lse) if return_lse else o
