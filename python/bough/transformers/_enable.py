"""enable() and disable()."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from .._config import Plan, plan_text
from .._library import BoughError
from ._cache import BoughCache
from ._enabled import MODELS, NAME, Enabled
from ._forward import attend_texts, attention_forward, mask_bounds


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
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, mask_bounds)
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
        now.undo.append(_set(model, "_prepare_cache_for_generation", _cache_maker(model)))
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


def _cache_maker(model: Any) -> Callable[..., Any]:
    """In place of the model's own: generate() without a cache and without a cache_implementation gets a BoughCache."""
    own = model._prepare_cache_for_generation

    def prepare(
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        asked = generation_config.cache_implementation is not None or generation_config.use_cache is False
        if not asked and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = BoughCache(model, max_cache_length)
            return None
        return own(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length, *args, **kwargs)

    return prepare


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
        attend_texts(now, layer.layer_idx, one, one, one)


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
