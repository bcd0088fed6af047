"""What Transformers calls: the mask, which becomes each text's bounds, and the attention function."""

from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor
from transformers.masking_utils import and_masks, causal_mask_function

from .._library import BoughError
from ..attention import attention
from ._attend import attend_layer
from ._cache import HANDLE, BoughLayer
from ._enabled import Enabled


def mask_bounds(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Optional[Tensor] = None,
    **_kwargs: Any,
) -> Tensor:
    """[b, 1, 1, 2] int64 on the CPU: of each text its first and its one-after-last key; 4 dimensions, as Transformers passes these on as
    they are. Once a forward call. Raises BoughError."""
    if not _is_causal(mask_function):
        raise BoughError(
            "the mask must be plainly causal, not bidirectional, packed, chunked or one of your own", "unsupported"
        )
    kv_first = int(kv_offset)
    tokens = int(q_offset) + q_length
    ends = torch.tensor([0, tokens - kv_first]).expand(batch_size, 1, 1, 2)
    if attention_mask is None:
        return ends
    if attention_mask.dim() != 2 or attention_mask.shape[1] < tokens:
        shape = list(attention_mask.shape)
        raise BoughError(f"attention_mask has shape {shape}, it must be [{batch_size}, {tokens}], one element a token")
    seen = attention_mask[:, :tokens] != 0
    counts, holes = torch.stack([seen.sum(dim=1), (seen[:, :-1] & ~seen[:, 1:]).sum(dim=1)]).cpu()
    if bool(holes.any()):
        text = int(holes.nonzero()[0])
        raise BoughError(
            f"attention_mask[{text}] has padding after a token, it must be on the left only", "unsupported"
        )
    bounds = ends.clone()
    bounds[:, 0, 0, 0] = (tokens - counts - kv_first).clamp(min=0)
    return bounds


def _is_causal(function: Callable[..., Any]) -> bool:
    """Whether a mask function is causal_mask_function, alone or with a sliding window, which the layer brings itself."""
    if function is causal_mask_function:
        return True
    name = getattr(function, "__qualname__", "")
    if name == and_masks(causal_mask_function).__qualname__:
        parts = [part for cell in function.__closure__ or () for part in cell.cell_contents]
        return all(_is_causal(part) for part in parts)
    return name.startswith("sliding_window_overlay.")


def attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Optional[Tensor],
    scaling: Optional[float] = None,
    dropout: float = 0.0,
    sliding_window: Optional[int] = None,
    softcap: Optional[float] = None,
    s_aux: Optional[Tensor] = None,
    is_causal: Optional[bool] = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [b, hq, tq, d], key and value [b, hkv, tk, d], of one rank where heads are split: o [b, tq, hq, d]. Raises BoughError."""
    now = module.__dict__.get("bough")
    if now is None:
        raise BoughError(
            f"the {type(module).__name__} has 'bough' attention but no plan: call bough.transformers.enable"
        )
    if module.training or dropout > 0:
        raise BoughError(f"training is not supported (dropout is {dropout}): call model.eval()", "unsupported")
    if kwargs.get("output_attentions") or getattr(module.config, "output_attentions", False):
        raise BoughError("output_attentions is not supported: the weights are never there as a whole", "unsupported")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise BoughError("is_causal is False, attention must be causal", "unsupported")
    for name in ("position_bias", "cache"):
        if kwargs.get(name) is not None:
            raise BoughError(f"{name} is given to the attention function, which is not supported", "unsupported")
    options = dict(scale=scaling, softcap=softcap or 0.0, sliding_window=sliding_window or 0, sink_logits=_sinks(s_aux))
    layer = module.layer_idx
    b, heads, rows, d = query.shape
    held = getattr(key, HANDLE, None)
    if isinstance(held, BoughLayer):
        if held.now is not now:
            raise BoughError("the BoughCache was made for another model, or before the model was enabled as it is now")
        padding = [0] * b if attention_mask is None else _padding(_bounds(attention_mask, b), held)
        return attend_layer(held, layer, query, padding, options), None
    if attention_mask is None:
        return attend_texts(now, layer, query, key, value, **options).transpose(1, 2), None
    bounds = _bounds(attention_mask, b)
    if all(one == bounds[0] for one in bounds):
        o = _part(now, layer, query, key, value, bounds[0], options)
        return o.transpose(1, 2), None
    out = query.new_zeros((b, rows, heads, d))
    for s, bound in enumerate(bounds):
        part = _part(now, layer, query[s : s + 1], key[s : s + 1], value[s : s + 1], bound, options)
        out[s : s + 1] = part.transpose(1, 2)
    return out, None


def _bounds(mask: Any, batch: int) -> list[list[int]]:
    shape = list(getattr(mask, "shape", ()))
    if (
        not isinstance(mask, Tensor)
        or mask.dtype != torch.int64
        or shape[1:] != [1, 1, 2]
        or shape[0] not in (1, batch)
    ):
        raise BoughError(
            f"attention_mask is a {type(mask).__name__} of shape {shape}, it must be [batch, tokens] or None",
            "unsupported",
        )
    bounds: list[list[int]] = mask.expand(batch, 1, 1, 2)[:, 0, 0].tolist()
    return bounds


def _padding(bounds: list[list[int]], held: BoughLayer) -> list[int]:
    for _, end in bounds:
        if end != held.columns:
            raise BoughError(f"the mask has {end} tokens, the cache has {held.columns}")
    return [first for first, _ in bounds]


def _part(
    now: Enabled, layer: int, q: Tensor, k: Tensor, v: Tensor, bound: list[int], options: dict[str, Any]
) -> Tensor:
    """Texts of equal bounds: keys [first, end); rows of q before a text's first token are 0."""
    first, end = bound
    if end > k.shape[2]:
        raise BoughError(f"the mask has {end} tokens, the cache hands over {k.shape[2]}")
    if first >= end:  # a slice of padding only
        return q.new_zeros(q.shape)
    padded = max(0, q.shape[2] - (end - first))
    o = attend_texts(now, layer, q[:, :, padded:], k[:, :, first:end], v[:, :, first:end], **options)
    return o if padded == 0 else torch.nn.functional.pad(o, (0, 0, padded, 0))


def attend_texts(now: Enabled, layer: int, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """attention() of texts of equal length."""
    options.update(now.rope())
    o: Tensor = attention(q, k, v, now.plan, layer=layer, trained_context=now.trained_context, **options)
    return o


def _sinks(s_aux: Optional[Tensor]) -> Optional[Tensor]:
    return None if s_aux is None else s_aux.detach().reshape(-1).float().contiguous()
