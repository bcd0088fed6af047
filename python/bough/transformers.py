"""bough.transformers: Bough's attention in models of Hugging Face Transformers (Llama, Mistral, Qwen2, Qwen3).

    model = AutoModelForCausalLM.from_pretrained(...).eval()
    bough.transformers.enable(model, "default", extend=True)
    print(model.bough)  # the mode that is active, in one line
    model.generate(...)
    bough.transformers.disable(model)

Imported by its full name; needs torch and transformers. See docs/transformers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
import transformers
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, and_masks, causal_mask_function
from transformers.modeling_utils import AttentionInterface

from ._config import Plan, plan_text
from ._library import BoughError
from .attention import attention

NAME = "bough"  # in Transformers' tables of attention functions and masks
MODELS = ("llama", "mistral", "qwen2", "qwen3")

__all__ = ["Enabled", "disable", "enable"]


@dataclass
class Enabled:
    """What enable() switched on, as model.bough; str() says it in a line.

    mode             "rotated": Transformers turns keys at their own positions, a text is at most trained_context tokens long; "extend":
                     keys are cached unturned and Bough turns them by their ranks, a text may be longer
    plan             a preset's name, JSON or a file's path
    trained_context  tokens: the config's max_position_embeddings
    frequencies      mode "extend": radians a position of each pair, [dims / 2], with the model's own scaling; otherwise empty
    rope_magnitude   mode "extend": the factor of cosines and sines, 1 where the model has none
    """

    mode: str
    plan: str
    trained_context: int
    frequencies: tuple[float, ...] = ()
    rope_magnitude: float = 1.0
    undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        if self.mode == "extend":
            return f"extend: plan {self.plan}, keys cached unturned and turned by rank, texts beyond {self.trained_context} tokens too"
        return (
            f"rotated: plan {self.plan}, keys turned at their own positions, texts up to {self.trained_context} tokens"
        )


def enable(model: Any, plan: Plan = "default", *, extend: bool = False) -> Enabled:
    """Makes the attention layers of a Transformers model Bough's, in place; returns what is active, which is model.bough too.

    model: Llama, Mistral, Qwen2 or Qwen3, with or without its head, of head dim 64, 96, 128 or 256, in eval mode when it runs. plan: a
    preset's name, JSON, a file or a mapping (docs/plan.md), cut to fit config.max_position_embeddings; each layer takes its own part of
    it by its index.

    extend False, mode "rotated": queries and keys come turned from Transformers, at their own positions, and nothing is re-assigned: sparse
    attention of texts up to config.max_position_embeddings tokens. extend True, mode "extend": the rotary module of the model becomes the
    identity, keys are cached unturned, and Bough turns them by their ranks in the context with the model's own frequencies: texts can be
    much longer than trained. A cache that was filled in one mode is of no use in the other.

    A model that is enabled already is disabled first. Raises BoughError: an unknown model, a plan that does not fit; and, when the model
    runs: training, dropout, output_attentions, non-causal attention, right padding and holes in the mask, masks of one's own, packed
    sequences, a paged cache of Transformers, in mode "rotated" a text beyond the trained context.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if config is None or kind not in MODELS:
        raise BoughError(f"the model is of type '{kind}', it must be one of {', '.join(MODELS)}", "unsupported")
    layers = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "num_key_value_groups")]
    if not layers:
        raise BoughError(f"the {type(model).__name__} has no attention layers", "unsupported")
    now = Enabled("rotated", plan_text(plan), int(config.max_position_embeddings))
    rotary = _rotary(model) if extend else None
    if rotary is not None:
        now.mode = "extend"
        now.frequencies, now.rope_magnitude = _rope_of(rotary)
    _try_plan(now, layers)

    disable(model)
    AttentionInterface.register(NAME, _attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
    before = config._attn_implementation
    model.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:
        raise BoughError(f"Transformers kept '{config._attn_implementation}' attention in the {type(model).__name__}")
    now.undo.append(lambda: model.set_attn_implementation(before))
    for layer in layers:
        now.undo.append(_set(layer, "bough", now))
    generation = getattr(model, "generation_config", None)
    if generation is not None:  # generate() would compile static caches on a GPU, but lengths are read on the host
        now.undo.append(_set(generation, "disable_compile", True))
    if rotary is not None:
        now.undo.append(_set(rotary, "forward", _identity_of(2 * len(now.frequencies))))
    now.undo.append(_set(model, "bough", now))
    return now


def disable(model: Any) -> None:
    """Gives a model the attention and the rotary module back that it had before enable(). Nothing happens to another one."""
    now = model.__dict__.get("bough")
    if isinstance(now, Enabled):
        while now.undo:
            now.undo.pop()()


def _set(module: Any, name: str, value: Any) -> Callable[[], None]:
    """Sets an attribute of the instance and returns what takes it back."""
    had, old = name in module.__dict__, module.__dict__.get(name)
    module.__dict__[name] = value

    def undo() -> None:
        if had:
            module.__dict__[name] = old
        else:
            module.__dict__.pop(name, None)

    return undo


def _try_plan(now: Enabled, layers: list[Any]) -> None:
    """One token through each layer's plan, on the CPU. Raises BoughError for a plan or a head dim that does not go."""
    for layer in layers:
        one = torch.zeros((1, 1, 1, layer.head_dim), device="cpu")
        _run(now, layer.layer_idx, one, one, one)


# ---- RoPE ----


def _rotary(model: Any) -> Any:
    found = [m for m in model.modules() if hasattr(m, "inv_freq") and hasattr(m, "attention_scaling")]
    if len(found) != 1:
        raise BoughError(f"the model has {len(found)} rotary modules, extend needs 1", "unsupported")
    return found[0]


def _rope_of(rotary: Any) -> tuple[tuple[float, ...], float]:
    """Frequencies and magnitude as the module has them for short texts."""
    kind = getattr(rotary, "rope_type", "default")
    if kind == "longrope":
        raise BoughError(
            "the model's rope_type is 'longrope', whose frequencies depend on the text's length", "unsupported"
        )
    turns = rotary.original_inv_freq if kind == "dynamic" else rotary.inv_freq
    if turns.is_meta:
        raise BoughError("the rotary module is on the meta device: enable the model after its weights are there")
    return tuple(turns.detach().double().cpu().tolist()), float(rotary.attention_scaling)


def _identity_of(dims: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Cosines 1 and sines 0 [b, t, dims] of x's type, in place of a rotary module's forward(x, position_ids [b, t])."""

    def forward(x: Tensor, position_ids: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        shape = (*position_ids.shape, dims)
        return x.new_ones(shape), x.new_zeros(shape)

    return forward


# ---- what Transformers calls ----


def _mask(
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
    seen = attention_mask[:, :tokens].to(device="cpu", dtype=torch.int8)
    if bool((seen[:, 1:] < seen[:, :-1]).any()):
        text = int((seen[:, 1:] < seen[:, :-1]).any(dim=1).nonzero()[0])
        raise BoughError(
            f"attention_mask[{text}] has padding after a token, it must be on the left only", "unsupported"
        )
    counts = seen.sum(dim=1, dtype=torch.int64)
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


def _attention_forward(
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
    if attention_mask is None:
        return _run(now, layer, query, key, value, **options).transpose(1, 2), None
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
    o = _run(now, layer, q[:, :, padded:], k[:, :, first:end], v[:, :, first:end], **options)
    return o if padded == 0 else torch.nn.functional.pad(o, (0, 0, padded, 0))


def _run(now: Enabled, layer: int, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    if now.mode == "extend":
        options.update(frequencies=now.frequencies, rope_magnitude=now.rope_magnitude)
    else:
        options.update(keys_rotated=True)
    return attention(q, k, v, now.plan, layer=layer, trained_context=now.trained_context, **options)


def _sinks(s_aux: Optional[Tensor]) -> Optional[Tensor]:
    return None if s_aux is None else s_aux.detach().reshape(-1).float().contiguous()
