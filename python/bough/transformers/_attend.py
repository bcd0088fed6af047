"""Attention over a layer of a BoughCache: on CUDA devices by PagedAttention, on the CPU by attention()."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from .._arrays import TorchArrays
from .._config import Config, dtype_name
from .._cuda import find_attention, workspace_of
from .._library import BoughError
from ..attention import attention
from ._cache import BoughLayer


def attend_layer(layer: BoughLayer, index: int, q: Tensor, padding: list[int], options: dict[str, Any]) -> Tensor:
    """q [b, hq, tq, d] of the rows that update() of the layer, the model's index-th, was called with last; text s begins at column
    padding[s]. options: scale, softcap, sliding_window and sink_logits of attention(). o [b, tq, hq, d], padding's rows 0.
    """
    rows = layer.store(padding)
    if max(rows) == 0:
        layer.counter = 0
        return q.new_zeros((q.shape[0], q.shape[2], q.shape[1], q.shape[3]))
    if q.device.type != "cuda":
        return _on_cpu(layer, index, q, rows, options)
    with torch.cuda.device(q.device):
        return _on_cuda(layer, index, q, rows, options)


def _on_cpu(layer: BoughLayer, index: int, q: Tensor, rows: list[int], options: dict[str, Any]) -> Tensor:
    now, lengths, given = layer.now, layer.lengths(), q.shape[2]
    options = {**options, **now.rope(), "layer": index, "trained_context": now.trained_context}
    longest = max(lengths)
    if min(rows) == given:
        k, v = layer.keys[:, :, :longest], layer.values[:, :, :longest]
        many = None if min(lengths) == longest else torch.tensor(lengths, dtype=torch.int32)
        o: Tensor = attention(q, k, v, now.plan, lengths=many, **options)
        return o.transpose(1, 2)
    out = q.new_zeros((q.shape[0], given, q.shape[1], q.shape[3]))
    for s, (length, n) in enumerate(zip(lengths, rows)):
        if n > 0:
            k, v = layer.keys[s : s + 1, :, :length], layer.values[s : s + 1, :, :length]
            o = attention(q[s : s + 1, :, given - n :], k, v, now.plan, **options)
            out[s, given - n :] = o[0].transpose(0, 1)
    return out


def _config_of(layer: BoughLayer, index: int, q: Tensor, options: dict[str, Any]) -> tuple[Config, Optional[Tensor]]:
    if q.dtype not in (torch.bfloat16, torch.float16):
        raise BoughError(f"q has elements of type {q.dtype}, on a CUDA device they must be bfloat16 or float16")
    now, others = layer.now, dict(options)
    sinks: Optional[Tensor] = others.pop("sink_logits")
    others["scale"] = others["scale"] or 0.0
    config = Config(
        plan=now.plan,
        layer=index,
        heads=q.shape[1],
        kv_heads=layer.keys.shape[1],
        head_dim=q.shape[3],
        dtype=dtype_name(q.dtype, "q"),
        kv_dtype=dtype_name(layer.keys.dtype, "k"),
        trained_context=now.trained_context,
        **now.rope(),
        **others,
    )
    return config, sinks


def _on_cuda(layer: BoughLayer, index: int, q: Tensor, rows: list[int], options: dict[str, Any]) -> Tensor:
    config, sinks = _config_of(layer, index, q, options)
    room = layer.keys.shape[2]
    most = min(room, config.trained_context) if config.keys_rotated else room
    if q.shape[2] == 1 and min(rows) == 1:
        return _decode(layer, config, q, most, sinks)
    return _prefill(layer, config, q, rows, most, sinks)


def _decode(layer: BoughLayer, config: Config, q: Tensor, most: int, sinks: Optional[Tensor]) -> Tensor:
    """One row a text, by the plan's refresh schedule; text s has slot s of the layer's states."""
    lengths, b, ints = layer.lengths(), q.shape[0], layer.ints
    arrays = TorchArrays(q.device.index)
    kept = find_attention(config, b, b, most, q.device.index, False)
    decoder = kept.attention
    if layer.states is None:
        layer.states = decoder.new_states(b, like=q)
    stages = [decoder.due_stage(layer.counter, n) for n in lengths]
    o: Tensor = decoder.decode(
        q[:, :, 0],
        *layer.tokens(),
        lengths=ints(lengths, q.device),
        states=layer.states,
        slots=b,
        slot=ints(range(b), q.device),
        stage=ints(stages, q.device),
        least_stage=min(stages),
        longest=max(lengths),
        summary=layer.summary(decoder, q),
        sink_logits=sinks,
        workspace=workspace_of(kept, arrays, arrays.stream(), False),
    )
    layer.counter += 1
    return o.unsqueeze(1)


def _prefill(
    layer: BoughLayer, config: Config, q: Tensor, rows: list[int], most: int, sinks: Optional[Tensor]
) -> Tensor:
    """Texts of any number of rows, one after the other in one call."""
    layer.counter = 0
    b, heads, given, d = q.shape
    lengths, ints = layer.lengths(), layer.ints
    whole = min(rows) == given
    if whole:
        packed = q.transpose(1, 2).reshape(b * given, heads, d)
    else:
        packed = torch.cat([q[s, :, given - n :].transpose(0, 1) for s, n in enumerate(rows)])
    starts = [sum(rows[:s]) for s in range(b + 1)]
    reader = find_attention(config, starts[-1], b, most, q.device.index, False).attention
    call = {
        "lengths": ints(lengths, q.device),
        "query_start": ints(starts, q.device),
        "longest": max(lengths),
        "workspace": reader.new_workspace(q),  # large, and not needed between prefills
    }
    reader.prune(packed, *layer.tokens(), summary=layer.summary(reader, q), **call)
    o: Tensor = reader.attend(packed, *layer.tokens(), sink_logits=sinks, **call)
    if whole:
        return o.view(b, given, heads, d)
    out = q.new_zeros((b, given, heads, d))
    for s, n in enumerate(rows):
        out[s, given - n :] = o[starts[s] : starts[s + 1]]
    return out
