"""bough.transformers on the CPU: small random models against Transformers' own attention."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from plans import SMALL, STREAMING

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")

import bough  # noqa: E402
import bough.transformers  # noqa: E402
from bough.transformers._forward import attention_forward  # noqa: E402

VOCABULARY = 97
TRAINED = 512
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}


def built(kind: str = "Llama", seed: int = 0, **changes: Any) -> Any:
    """A model of random weights, large enough that attention matters, in eval mode with sdpa attention."""
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=TRAINED,
        initializer_range=0.2,
        attn_implementation="sdpa",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    if kind == "Mistral":
        sizes["sliding_window"] = None
    sizes.update(changes)
    torch.manual_seed(seed)
    config = getattr(transformers, kind + "Config")(**sizes)
    model = getattr(transformers, kind + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model


def ids(tokens: int, batch: int = 1, seed: int = 1) -> Any:
    return torch.randint(2, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any, tokens: Any, **options: Any) -> Any:
    return model(tokens, **options).logits


def worst(a: Any, b: Any) -> float:
    return float((a - b).norm(dim=-1).div(b.norm(dim=-1)).max())


@pytest.fixture(scope="module")
def llama() -> Any:
    return built()


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize(
    "kind,changes",
    [
        ("Llama", {}),
        ("Llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "attention_bias": True}),
        ("Llama", {"rope_parameters": LLAMA3}),
        ("Llama", {"rope_parameters": YARN}),
        ("Mistral", {}),
        ("Mistral", {"sliding_window": 20}),
        ("Qwen2", {}),
        ("Qwen2", SLIDING),
        ("Qwen3", {}),
    ],
)
def test_short_texts_are_as_before(kind: str, changes: dict[str, Any], extend: bool) -> None:
    """Prefill, prefill in slices over a cache, decode and a batch with padding, all seen; disable() gives all back."""
    model, tokens = built(kind, **changes), ids(90)
    expected = logits(model, tokens)
    short = torch.cat([torch.zeros((1, 30), dtype=tokens.dtype), tokens[:, :60]], dim=1)
    batch, mask = torch.cat([tokens, short]), torch.ones((2, 90), dtype=torch.int64)
    mask[1, :30] = 0
    padded = logits(model, batch, attention_mask=mask)

    now = bough.transformers.enable(model, SMALL, extend=extend)
    assert model.bough is now and now.mode == ("extend" if extend else "rotated") and str(now).startswith(now.mode)
    assert worst(logits(model, tokens), expected) < 1e-4
    assert worst(logits(model, tokens, use_cache=False), expected) < 1e-4

    cache = transformers.DynamicCache(config=model.config)
    parts = [logits(model, part, past_key_values=cache) for part in tokens.split([50, 35, 1, 1, 3], dim=1)]
    assert worst(torch.cat(parts, dim=1), expected) < 1e-4

    ours = logits(model, batch, attention_mask=mask)
    assert worst(ours[0], padded[0]) < 1e-4
    assert worst(ours[1, 30:], padded[1, 30:]) < 1e-4
    assert worst(ours[1, 30:], expected[0, :60]) < 1e-4
    cache = transformers.DynamicCache(config=model.config)
    slices = [(0, 20), (20, 55), (55, 89), (89, 90)]  # the first is padding only in the second text
    parts = [logits(model, batch[:, a:b], attention_mask=mask[:, :b], past_key_values=cache) for a, b in slices]
    assert worst(torch.cat(parts, dim=1)[1, 30:], expected[0, :60]) < 1e-4

    bough.transformers.disable(model)
    assert (
        not hasattr(model, "bough")
        and not model.generation_config.disable_compile
        and model.config._attn_implementation == "sdpa"
    )
    assert torch.equal(logits(model, tokens), expected)


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind,changes", [("Llama", {}), ("Qwen2", SLIDING)])
def test_generate(kind: str, changes: dict[str, Any], cache: str, extend: bool) -> None:
    model, tokens = built(kind, **changes), ids(40, batch=2)
    mask = torch.ones_like(tokens)
    mask[0, :11] = 0
    options = dict(attention_mask=mask, max_new_tokens=12, do_sample=False, cache_implementation=cache)
    expected = model.generate(tokens, **options)
    bough.transformers.enable(model, SMALL, extend=extend)
    assert torch.equal(model.generate(tokens, **options), expected)


def test_static_cache_in_slices(llama: Any) -> None:
    model, tokens = copy.deepcopy(llama), ids(70)
    expected = logits(model, tokens)
    bough.transformers.enable(model, SMALL, extend=True)
    cache = transformers.StaticCache(config=model.config, max_cache_len=100)
    parts = [logits(model, part, past_key_values=cache) for part in tokens.split([40, 29, 1], dim=1)]
    assert worst(torch.cat(parts, dim=1), expected) < 1e-4


def dense_states(model: Any, tokens: Any, context: Any) -> Any:
    """Logits of a one-layer model whose row i sees context(i), turned by ranks, in float64."""
    layer, base = model.model.layers[0], model.model
    config, attend = model.config, layer.self_attn
    x = base.embed_tokens(tokens)
    y = layer.input_layernorm(x)
    d, n = attend.head_dim, tokens.shape[1]
    q, k, v = (p(y).view(n, -1, d).double() for p in (attend.q_proj, attend.k_proj, attend.v_proj))
    turns = base.rotary_emb.inv_freq.double()

    def turned(z: Any, ranks: Any) -> Any:
        angle = ranks.double()[:, None, None] * turns
        a, b = z[..., : d // 2], z[..., d // 2 :]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)

    out = torch.zeros_like(q)
    group = config.num_attention_heads // config.num_key_value_heads
    for i in range(n):
        seen = context(i)
        ranks = torch.arange(len(seen))
        keys = turned(k[seen], ranks).repeat_interleave(group, dim=1)
        query = turned(q[i : i + 1], ranks[-1:])[0]
        weights = torch.einsum("hd,thd->ht", query, keys).div(d**0.5).softmax(dim=-1)
        out[i] = torch.einsum("ht,thd->hd", weights, v[seen].repeat_interleave(group, dim=1))
    x = x + attend.o_proj(out.reshape(1, n, -1).float())
    x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(base.norm(x))


@torch.no_grad()
def test_long_text_by_ranks() -> None:
    """A text of 700 tokens, 512 trained: streaming is dense attention over what each block of 64 rows sees."""
    model, tokens = built(num_hidden_layers=1), ids(700)

    def context(i: int) -> Any:
        r0, r1 = i // 64 * 64, min(700, i // 64 * 64 + 64)
        first = max(64, (r0 + 1 - 128) // 8 * 8)
        return torch.arange(i + 1) if r1 <= 192 else torch.cat([torch.arange(64), torch.arange(first, i + 1)])

    expected = dense_states(model, tokens, context)
    bough.transformers.enable(model, STREAMING, extend=True)
    assert worst(logits(model, tokens), expected) < 1e-4
    padded = torch.cat([torch.zeros((1, 37), dtype=tokens.dtype), tokens], dim=1)
    mask = (torch.arange(737) >= 37).long()[None]
    assert worst(logits(model, padded, attention_mask=mask)[:, 37:], expected) < 1e-4


def test_long_text_in_stages(llama: Any) -> None:
    model, tokens = copy.deepcopy(llama), ids(900)
    bough.transformers.enable(model, SMALL, extend=True)
    whole = logits(model, tokens)
    assert whole.isfinite().all()
    out = model.generate(tokens, max_new_tokens=3, do_sample=False)
    assert out.shape == (1, 903) and int(out[0, 900]) == int(whole[0, -1].argmax())
    streaming = copy.deepcopy(llama)
    bough.transformers.enable(streaming, STREAMING, extend=True)
    assert worst(logits(streaming, tokens)[:, 200:], whole[:, 200:]) > 1e-3  # stages choose something


def test_rotated_prunes_within_the_trained_context(llama: Any) -> None:
    model, tokens = copy.deepcopy(llama), ids(500)
    before = logits(model, tokens)
    now = bough.transformers.enable(model, SMALL)
    after = logits(model, tokens)
    assert worst(after[:, :192], before[:, :192]) < 1e-4
    assert worst(after[:, 300:], before[:, 300:]) > 1e-3
    assert now.trained_context == TRAINED and not now.frequencies
    with pytest.raises(bough.BoughError, match="tokens is 513, it must be at most trained_context, 512"):
        logits(model, ids(513))


def test_layers_have_plans_of_their_own(llama: Any) -> None:
    model, tokens = copy.deepcopy(llama), ids(400)
    before = logits(model, tokens)
    bough.transformers.enable(model, json.dumps({**SMALL, "layers": [{"layers": [0, 1], "mode": "dense"}]}))
    assert worst(logits(model, tokens), before) < 1e-4
    bough.transformers.enable(model, {**SMALL, "layers": [{"layers": [1], "mode": "dense"}]})
    assert worst(logits(model, tokens)[:, 300:], before[:, 300:]) > 1e-3


def test_softcap_and_sinks_are_passed_on(llama: Any) -> None:
    model = copy.deepcopy(llama)
    bough.transformers.enable(model, SMALL)
    q, k = torch.randn(1, 4, 9, 64), torch.randn(1, 2, 9, 64)
    forward, layer = attention_forward, model.model.layers[1].self_attn
    sinks = torch.tensor([0.0, 1.0, 2.0, 3.0])
    o, weights = forward(layer, q, k, k, None, scaling=0.2, softcap=2.0, s_aux=sinks)
    expected = bough.attention(q, k, k, SMALL, scale=0.2, softcap=2.0, sink_logits=sinks, keys_rotated=True)
    assert weights is None and torch.equal(o, expected.transpose(1, 2))


def test_what_is_not_supported(llama: Any) -> None:
    enable, tokens = bough.transformers.enable, ids(20, batch=2)
    with pytest.raises(bough.BoughError, match="the model is of type 'Linear', it must be one of llama, mistral"):
        enable(torch.nn.Linear(2, 2))
    with pytest.raises(bough.BoughError, match="nonsense"):
        enable(copy.deepcopy(llama), "nonsense")
    with pytest.raises(bough.BoughError, match="head_dim is 32, it must be 64, 96, 128 or 256"):
        enable(built(head_dim=32))
    model = copy.deepcopy(llama)
    with pytest.raises(bough.BoughError, match="window is -8"):
        enable(model, {**SMALL, "window": -8}, extend=True)
    assert torch.equal(logits(model, tokens), logits(llama, tokens))  # nothing was switched on
    bough.transformers.disable(model)

    enable(model, SMALL)
    right, hole = torch.ones_like(tokens), torch.ones_like(tokens)
    right[1, 15:], hole[1, 5:8] = 0, 0
    for mask, sentence in [
        (right, "attention_mask\\[1\\] has padding after a token"),
        (hole, "attention_mask\\[1\\] has padding after a token"),
        (right[:, :10], "attention_mask has shape \\[2, 10\\], it must be \\[2, 20\\]"),
        (torch.ones((2, 1, 20, 20), dtype=torch.bool), "attention_mask is a Tensor of shape \\[2, 1, 20, 20\\]"),
    ]:
        with pytest.raises(bough.BoughError, match=sentence):
            logits(model, tokens, attention_mask=mask)
    packed = torch.cat([torch.arange(8), torch.arange(12)]).expand(2, 20)
    with pytest.raises(bough.BoughError, match="plainly causal, not bidirectional, packed"):
        logits(model, tokens, position_ids=packed, use_cache=False)
    with pytest.raises((bough.BoughError, ValueError), match="output_attentions"):
        logits(model, tokens, output_attentions=True)
    with pytest.raises(bough.BoughError, match="is_causal is False|not bidirectional"):
        logits(model, tokens, is_causal=False)
    with pytest.raises(bough.BoughError, match="training is not supported \\(dropout is 0.5\\)"):
        attention_forward(model.model.layers[0].self_attn, *[torch.zeros(1, 2, 3, 64)] * 3, None, dropout=0.5)
    model.train()
    with pytest.raises(bough.BoughError, match="training is not supported"):
        logits(model, tokens)
