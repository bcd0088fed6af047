"""attention() as a custom operator of PyTorch, bough::attention, for torch.compile and CUDA graphs. Imported when a tensor comes."""

from typing import Any, Optional, Sequence

import torch
from torch import Tensor

from ._config import Config
from ._cpu import attend_views
from ._cuda import attend_cuda
from ._dlpack import view
from ._library import BoughError


def _on_cpu(
    config: Config,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Optional[Tensor],
    k_scale: Optional[Tensor],
    v_scale: Optional[Tensor],
    sinks: Optional[Tensor],
) -> tuple[Tensor, Tensor]:
    def read(x: Tensor, scale: Optional[Tensor]) -> Tensor:
        y = x.float()
        if scale is None:
            return y
        return y * (scale if scale.numel() == 1 else scale.unsqueeze(-1))

    b, heads, rows, d = q.shape
    o = torch.empty((b, rows, heads, d), dtype=torch.float32).transpose(1, 2)
    lse = torch.empty((b, rows, heads), dtype=torch.float32)
    many = None if lengths is None else view(lengths.to(torch.int32).contiguous(), "lengths")
    sink = None if sinks is None else view(sinks.float().contiguous(), "sink_logits")
    views = [
        view(x, name) for x, name in ((q.float(), "q"), (read(k, k_scale), "k"), (read(v, v_scale), "v"), (o, "o"))
    ]
    attend_views(config, [*views, view(lse, "lse")], many, sink)
    out = torch.empty((b, rows, heads, d), dtype=q.dtype).transpose(1, 2)
    return out.copy_(o), lse.transpose(1, 2)


@torch.library.custom_op("bough::attention", mutates_args=(), device_types=("cpu", "cuda"))
def attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: str,
    layer: int,
    frequencies: Sequence[float],
    rope_pairs: str,
    rope_magnitude: float,
    scale: float,
    softcap: float,
    sliding_window: int,
    keys_rotated: bool,
    trained_context: int,
    lengths: Optional[Tensor] = None,
    k_scale: Optional[Tensor] = None,
    v_scale: Optional[Tensor] = None,
    sink_logits: Optional[Tensor] = None,
) -> tuple[Tensor, Tensor]:
    config = Config(
        plan=plan,
        layer=layer,
        heads=q.shape[1],
        kv_heads=k.shape[1],
        head_dim=q.shape[3],
        frequencies=tuple(frequencies),
        rope_pairs=rope_pairs,
        rope_magnitude=rope_magnitude,
        scale=scale,
        softcap=softcap,
        sliding_window=sliding_window,
        keys_rotated=keys_rotated,
        trained_context=trained_context,
    )
    others = {"k": k, "v": v, "lengths": lengths, "k_scale": k_scale, "v_scale": v_scale, "sink_logits": sink_logits}
    for name, x in others.items():
        if x is not None and x.device != q.device:
            raise BoughError(f"{name} is on device {x.device}, it must be where q is, on {q.device}")
    run: Any = _on_cpu if q.device.type == "cpu" else attend_cuda
    return run(config, q, k, v, lengths, k_scale, v_scale, sink_logits)


@attention_op.register_fake
def _(q, k, v, *_args, **_kwargs):  # type: ignore[no-untyped-def]
    b, heads, rows, d = q.shape
    o = q.new_empty((b, rows, heads, d)).transpose(1, 2)
    return o, q.new_empty((b, rows, heads), dtype=torch.float32).transpose(1, 2)
