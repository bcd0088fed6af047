"""bough.transformers on a GPU in bf16, against the same model on the CPU in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

import bough.transformers  # noqa: E402
from test_transformers import SMALL, STREAMING, VOCABULARY, built, ids  # noqa: E402

NEAR = 5e-2  # relative L2 distance of logits: weights, states and keys rounded to bf16 in two layers


def pair(plan: Any, extend: bool, kind: str = "Llama", **changes: Any) -> tuple[Any, Any]:
    """The model on the GPU and, with the weights that bf16 leaves, on the CPU."""
    device = built(kind, **changes).to(torch.bfloat16).cuda()
    host = copy.deepcopy(device).cpu().float()
    for model in (device, host):
        bough.transformers.enable(model, plan, extend=extend)
    return device, host


@torch.no_grad()
def distance(device: Any, host: Any, tokens: Any, **options: Any) -> float:
    on_device = {name: value.cuda() for name, value in options.items()}
    got = device(tokens.cuda(), **on_device).logits[:, -8:].float().cpu()
    want = host(tokens, **options).logits[:, -8:]
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("plan", ["dense", SMALL, STREAMING], ids=["dense", "small", "streaming"])
@pytest.mark.parametrize("extend", [False, True])
def test_logits_equal_those_of_the_cpu(kind, plan, extend):
    device, host = pair(plan, extend, kind)
    assert distance(device, host, ids(500, 2)) < NEAR


def test_dense_equals_transformers_own_attention():
    device, _ = pair("dense", False)
    tokens = ids(300, 2).cuda()
    with torch.no_grad():
        ours = device(tokens).logits.float()
        bough.transformers.disable(device)
        own = device(tokens).logits.float()
    assert float((ours - own).norm() / own.norm()) < NEAR


def test_texts_beyond_the_trained_context():
    device, host = pair(SMALL, True)
    assert distance(device, host, ids(1500)) < NEAR


def test_left_padding():
    device, host = pair(SMALL, False)
    mask = torch.ones((2, 400), dtype=torch.int64)
    mask[1, :150] = 0
    assert distance(device, host, ids(400, 2), attention_mask=mask) < NEAR


@pytest.mark.parametrize("extend", [False, True])
def test_generate_goes_on_as_prefill_would(extend):
    device, _ = pair(SMALL, extend)
    prompt = ids(450).cuda()
    out = device.generate(prompt, max_new_tokens=20, do_sample=False, output_logits=True, return_dict_in_generate=True)
    assert out.sequences.shape == (1, 470) and int(out.sequences.max()) < VOCABULARY
    with torch.no_grad():
        again = device(out.sequences[:, :-1]).logits[:, -1].float()
    last = out.logits[-1].float()
    # A prefill shares lists among 64 rows but for the tail, decoding has one for each row.
    assert float((last - again).norm() / again.norm()) < 0.2
