"""bough.transformers on a GPU in bf16, against the same model on the CPU in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from plans import MEANS, SMALL, STREAMING

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

import bough.transformers  # noqa: E402
from bough.transformers import BoughCache  # noqa: E402
from test_transformers import VOCABULARY, built, ids  # noqa: E402

NEAR = 5e-2  # relative L2 distance of logits: weights, states and keys rounded to bf16 in two layers


def pair(plan: Any, extend: bool, kind: str = "Llama", **changes: Any) -> tuple[Any, Any]:
    """The model on the GPU and, with the weights that bf16 leaves, on the CPU."""
    device = built(kind, **changes).to(torch.bfloat16).cuda()
    host = copy.deepcopy(device).cpu().float()
    for model in (device, host):
        bough.transformers.enable(model, plan, extend=extend)
    return device, host


@torch.no_grad()
def last_logits(model: Any, tokens: Any, **options: Any) -> Any:
    options = {name: value.to(model.device) for name, value in options.items()}
    return model(tokens.to(model.device), **options).logits[:, -8:].float().cpu()


def relative(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


def check(plan: Any, extend: bool, tokens: Any, kind: str = "Llama", **options: Any) -> None:
    """The GPU's logits are the CPU's. Where keys are searched for, states that are rounded choose other keys here and there: then they are
    at least twice as near as those of another plan."""
    device, host = pair(plan, extend, kind)
    got, want = last_logits(device, tokens, **options), last_logits(host, tokens, **options)
    allowed = NEAR
    if plan in (SMALL, MEANS):
        bough.transformers.enable(host, STREAMING, extend=extend)
        allowed = relative(last_logits(host, tokens, **options), want) / 2
        assert allowed > NEAR
    assert relative(got, want) < allowed


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("plan", ["dense", SMALL, MEANS, STREAMING], ids=["dense", "small", "means", "streaming"])
@pytest.mark.parametrize("extend", [False, True])
def test_logits_equal_those_of_the_cpu(kind, plan, extend):
    check(plan, extend, ids(500, 2), kind)


def test_dense_equals_transformers_own_attention():
    device, _ = pair("dense", False)
    tokens = ids(300, 2).cuda()
    with torch.no_grad():
        ours = device(tokens).logits.float()
        bough.transformers.disable(device)
        own = device(tokens).logits.float()
    assert relative(ours, own) < NEAR


def test_texts_beyond_the_trained_context():
    check(SMALL, True, ids(1500))


def test_left_padding():
    mask = torch.ones((2, 400), dtype=torch.int64)
    mask[1, :150] = 0
    check(SMALL, False, ids(400, 2), attention_mask=mask)


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("plan", ["dense", SMALL], ids=["dense", "small"])
def test_generate_goes_on_as_prefill_would(plan, extend):
    device, _ = pair(plan, extend)
    out = device.generate(
        ids(450).cuda(), max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert out.sequences.shape == (1, 456) and int(out.sequences.max()) < VOCABULARY
    text = out.sequences[:, :-1].cpu()
    again, allowed = last_logits(device, text)[:, -1], NEAR
    if plan in (SMALL, MEANS):
        bough.transformers.enable(device, STREAMING, extend=extend)
        allowed = relative(last_logits(device, text)[:, -1], again) / 2
    assert relative(out.logits[-1].float().cpu(), again) < allowed


# ---- decode over a BoughCache ----

OFTEN = SMALL  # every stage at every step
SELDOM = {**SMALL, "refresh": [4, 2]}


def on_gpu(plan: Any, extend: bool = False, **changes: Any) -> Any:
    """One layer, unless said otherwise, so that what it chooses does not depend on how another one rounds."""
    model = built(**{"num_hidden_layers": 1, **changes}).to(torch.bfloat16).cuda()
    bough.transformers.enable(model, plan, extend=extend)
    return model


def dynamic(model: Any) -> Any:
    return transformers.DynamicCache(config=model.config)


@torch.no_grad()
def fed(model: Any, cache: Any, tokens: Any, *ends: int, mask: Any = None, begin: int = 0) -> Any:
    """Logits of the columns from `begin` on, fed in slices that end at `ends`; those of padding are 0."""
    mask, parts = (torch.ones_like(tokens) if mask is None else mask).cuda(), []
    for end in ends:
        given = {"attention_mask": mask[:, :end], "past_key_values": cache}
        parts.append(model(tokens[:, begin:end].cuda(), **given).logits * mask[:, begin:end, None])
        begin = end
    return torch.cat(parts, dim=1).float().cpu()


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
@pytest.mark.parametrize("plan", [OFTEN, MEANS, STREAMING, "dense"], ids=["often", "means", "streaming", "dense"])
@pytest.mark.parametrize("extend", [False, True])
def test_decode_that_always_refreshes_equals_one_call(kind, plan, extend):
    model, tokens = on_gpu(plan, extend, kind=kind), ids(430, 2)
    steps = range(401, 431)
    ours, own = (fed(model, cache, tokens, 400, *steps) for cache in (BoughCache(model), dynamic(model)))
    for row in range(399, 430):
        assert relative(ours[:, row], own[:, row]) < NEAR, f"row {row}"


@pytest.mark.parametrize("extend", [False, True])
def test_steps_that_refresh_every_stage_equal_one_call(extend):
    model, tokens = on_gpu(SELDOM, extend), ids(430, 2)
    steps = range(401, 431)
    ours, own = (fed(model, cache, tokens, 400, *steps) for cache in (BoughCache(model), dynamic(model)))
    for row in range(400, 430, 4):
        assert relative(ours[:, row], own[:, row]) < NEAR, f"row {row}"
    bough.transformers.enable(model, STREAMING, extend=extend)
    other = fed(model, dynamic(model), tokens, 400, *steps)[:, 400:]
    assert relative(ours[:, 400:], own[:, 400:]) < relative(other, own[:, 400:])


@pytest.mark.parametrize("plan", ["default", SELDOM], ids=["default", "seldom"])
@pytest.mark.parametrize("extend", [False, True])
def test_a_text_that_is_seen_whole_is_dense(plan, extend):
    """Sinks, window and k of SELDOM are 256 tokens, of the default plan more."""
    model = on_gpu(plan, extend, num_hidden_layers=2, max_position_embeddings=8192)
    (tokens, mask), ends = left_padded(250, 0, 40), [200, *range(201, 251)]
    ours = fed(model, BoughCache(model), tokens, *ends, mask=mask)
    bough.transformers.disable(model)
    own = fed(model, dynamic(model), tokens, *ends, mask=mask)
    assert relative(ours, own) < NEAR


def left_padded(columns, *padding):
    mask = (torch.arange(columns)[None] >= torch.tensor(padding)[:, None]).long()
    return ids(columns, len(padding)) * mask, mask


@pytest.mark.parametrize("plan", [STREAMING, OFTEN, MEANS], ids=["streaming", "often", "means"])
def test_texts_that_begin_at_different_tokens(plan):
    model = on_gpu(plan, True)
    (tokens, mask), ends = left_padded(700, 0, 333, 90, 650), [300, 640, 690, *range(691, 701)]
    ours = fed(model, BoughCache(model), tokens, *ends, mask=mask)
    own = fed(model, dynamic(model), tokens, *ends, mask=mask)
    assert relative(ours, own) < NEAR


@pytest.mark.parametrize("stages", [SMALL["stages"], MEANS["stages"]], ids=["descents", "means"])
def test_the_text_changes_under_the_states(stages):
    """What is cropped, reordered, copied and read in slices goes on as a cache that never had states."""
    model, tokens, other = on_gpu({**SELDOM, "stages": stages}, True), ids(520, 2), ids(520, 2, seed=9)
    ours, own = BoughCache(model), dynamic(model)
    fed(model, ours, tokens, 400, *range(401, 407))
    fed(model, own, tokens, 400, 406)
    for change in (lambda x: x.crop(-5), lambda x: x.reorder_cache(torch.tensor([1, 0])), lambda x: x.crop(-1)):
        change(ours), change(own)
        begin = ours.get_seq_length()
        assert begin == own.get_seq_length()
        first = fed(model, ours, other, begin + 1, begin=begin), fed(model, own, other, begin + 1, begin=begin)
        assert relative(*first) < NEAR
        fed(model, ours, other, begin + 3, begin + 4, begin=begin + 1)
        fed(model, own, other, begin + 4, begin=begin + 1)
    ours, begin = copy.deepcopy(ours), ours.get_seq_length()
    assert relative(*(fed(model, x, other, begin + 1, begin=begin) for x in (ours, own))) < NEAR


def test_generate_makes_a_cache_that_grows():
    model = on_gpu(SELDOM, True, num_hidden_layers=2)
    tokens, mask = (x.cuda() for x in left_padded(90, 0, 30))
    options = {"attention_mask": mask, "max_new_tokens": 400, "do_sample": False, "return_dict_in_generate": True}
    out = model.generate(tokens, **options)
    layer = out.past_key_values.layers[1]
    assert isinstance(out.past_key_values, BoughCache) and layer.states is not None
    assert out.sequences.shape == (2, 490) and layer.lengths() == [489, 459] and layer.keys.shape[2] == 512
    again = model.generate(tokens, num_beams=2, **{**options, "max_new_tokens": 20})
    assert again.sequences.shape == (2, 110)
