"""bough.transformers on a GPU in bf16, against the same model on the CPU in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from plans import SMALL, STREAMING

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

import bough.transformers  # noqa: E402
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
    if plan is SMALL:
        bough.transformers.enable(host, STREAMING, extend=extend)
        allowed = relative(last_logits(host, tokens, **options), want) / 2
        assert allowed > NEAR
    assert relative(got, want) < allowed


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("plan", ["dense", SMALL, STREAMING], ids=["dense", "small", "streaming"])
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
    if plan is SMALL:
        bough.transformers.enable(device, STREAMING, extend=extend)
        allowed = relative(last_logits(device, text)[:, -1], again) / 2
    assert relative(out.logits[-1].float().cpu(), again) < allowed
