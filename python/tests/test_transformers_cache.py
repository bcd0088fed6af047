"""BoughCache on the CPU: against DynamicCache, whose texts run one after the other, and with a stand-in for PagedAttention."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from plans import SMALL

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")

import bough  # noqa: E402
import bough.transformers  # noqa: E402
from bough._config import first_alike  # noqa: E402
from bough.transformers import BoughCache, _attend  # noqa: E402
from test_transformers import SLIDING, built, ids, logits, worst  # noqa: E402

KINDS = [("Llama", {}), ("Qwen2", SLIDING), ("Qwen3", {})]


def enabled(kind: str = "Llama", extend: bool = False, plan: Any = SMALL, **changes: Any) -> Any:
    model = built(kind, **changes)
    bough.transformers.enable(model, plan, extend=extend)
    return model


def padded(columns: int, *padding: int) -> tuple[Any, Any]:
    """Texts [len(padding), columns] that begin at column padding[s], and their mask."""
    mask = (torch.arange(columns)[None] >= torch.tensor(padding)[:, None]).long()
    return ids(columns, len(padding)) * mask, mask


def dynamic(model: Any) -> Any:
    return transformers.DynamicCache(config=model.config)


def run(model: Any, tokens: Any, mask: Any, cache: Any, slices: list[int]) -> Any:
    """Logits of all columns, fed in slices that end at `slices`; those of padding are 0."""
    parts = [
        logits(model, tokens[:, a:b], attention_mask=mask[:, :b], past_key_values=cache)
        for a, b in zip([0, *slices], slices)
    ]
    return torch.cat(parts, dim=1) * mask[:, : slices[-1], None]


def near(a: Any, b: Any) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-4))


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("kind,changes", KINDS)
def test_logits_are_those_over_a_dynamic_cache(kind: str, changes: dict[str, Any], extend: bool) -> None:
    """Texts longer than what a row sees, that begin at different tokens; the first slice is padding only in one of them."""
    model = enabled(kind, extend, **changes)
    tokens, mask = padded(430, 0, 33, 150)
    slices = [100, 160, 424, *range(425, 431)]
    expected = run(model, tokens, mask, dynamic(model), slices)
    cache = BoughCache(model)
    assert near(run(model, tokens, mask, cache, slices), expected)
    assert cache.get_seq_length() == 430 and cache.layers[0].lengths() == [430, 397, 280]


@pytest.mark.parametrize("kind,changes", KINDS[:2])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"prompt_lookup_num_tokens": 3}]
)
def test_generate_makes_one(kind: str, changes: dict[str, Any], options: dict[str, Any]) -> None:
    model = enabled(kind, kind == "Llama", **changes)
    tokens, mask = padded(300, 0) if "prompt_lookup_num_tokens" in options else padded(300, 0, 41)
    options = dict(attention_mask=mask, max_new_tokens=8, do_sample=False, **options)
    expected = model.generate(tokens, cache_implementation="dynamic", **options)
    got = model.generate(tokens, return_dict_in_generate=True, **options)
    assert isinstance(got.past_key_values, BoughCache) and torch.equal(got.sequences, expected)
    bough.transformers.disable(model)
    got = model.generate(tokens, return_dict_in_generate=True, **options)
    assert type(got.past_key_values) is transformers.DynamicCache


def test_a_prefix_is_read_once_and_copied() -> None:
    model, tokens = enabled(), ids(360, 2)
    options = dict(max_new_tokens=5, do_sample=False)
    prefix, own = BoughCache(model), dynamic(model)
    for cache in (prefix, own):
        logits(model, tokens[:, :300], past_key_values=cache)
    expected = model.generate(tokens, past_key_values=own, **options)
    for _ in range(2):
        cache = copy.deepcopy(prefix)
        assert torch.equal(model.generate(tokens, past_key_values=cache, **options), expected)
        assert cache.get_seq_length() == 364 and prefix.get_seq_length() == 300


def test_crop_goes_back() -> None:
    model = enabled()
    (tokens, mask), other = padded(330, 0, 20), ids(330, 2, seed=5)
    expected = run(model, tokens, mask, dynamic(model), [310, 330])
    cache = BoughCache(model)
    run(model, torch.cat([tokens[:, :310], other[:, 310:]], dim=1), mask, cache, [310, 328, 329, 330])
    cache.crop(0)
    cache.crop(-20)
    assert cache.get_seq_length() == 310
    assert near(logits(model, tokens[:, 310:], attention_mask=mask, past_key_values=cache), expected[:, 310:])
    cache.reset()
    assert near(run(model, tokens[:1], mask[:1], cache, [310, 330]), expected[:1])
    with pytest.raises(bough.BoughError, match="crop is 3, it must be 0 or less"):
        cache.crop(3)


def test_texts_are_chosen_and_repeated() -> None:
    model = enabled()
    tokens, mask = padded(300, 0, 90)
    expected = run(model, tokens, mask, dynamic(model), [299, 300])[:, 299]
    for change, order in [
        (lambda cache: cache.reorder_cache(torch.tensor([1, 0])), [1, 0]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
        (lambda cache: cache.batch_select_indices(torch.tensor([False, True])), [1]),
    ]:
        cache = BoughCache(model)
        run(model, tokens, mask, cache, [299])
        change(cache)
        last = logits(model, tokens[order, 299:], attention_mask=mask[order], past_key_values=cache)
        assert near(last[:, 0], expected[order])


def test_a_mask_may_hide_more_and_not_less() -> None:
    model = enabled()
    tokens, mask = padded(200, 0, 30)
    whole = torch.ones_like(mask)
    expected = run(model, tokens, mask, dynamic(model), [200])
    cache = BoughCache(model)
    run(model, tokens, whole, cache, [150])
    assert cache.layers[0].lengths() == [150, 150]
    after = logits(model, tokens[:, 150:], attention_mask=mask, past_key_values=cache)
    assert near(after[0], expected[0, 150:]) and cache.layers[1].lengths() == [200, 170]
    with pytest.raises(
        bough.BoughError, match=r"attention_mask\[1\] begins at token 0; the cache has the text from token 30 on"
    ):
        logits(model, tokens[:, :1], attention_mask=torch.ones((2, 201)), past_key_values=cache)


def test_memory_doubles_up_to_the_length_that_was_said() -> None:
    model = enabled(extend=True)

    def rooms(cache: Any, *ends: int) -> list[int]:
        tokens, mask, seen, begin = ids(max(ends)), torch.ones((1, max(ends))), [], 0
        for end in ends:
            logits(model, tokens[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache)
            seen.append(cache.layers[0].keys.shape[2])
            begin = end
        return seen

    assert rooms(BoughCache(model), 100, 164, 192, 193) == [192, 192, 192, 384]
    assert rooms(BoughCache(model, max_length=310), 100, 201, 310, 321) == [256, 256, 320, 640]
    model = enabled()
    assert rooms(BoughCache(model), 400, 401) == [512, 512]


def test_what_is_refused() -> None:
    model, tokens = enabled(), ids(20, 2)
    with pytest.raises(bough.BoughError, match="the LlamaForCausalLM has no plan: call bough.transformers.enable"):
        BoughCache(built())
    cache = BoughCache(model)
    logits(model, tokens, past_key_values=cache)
    with pytest.raises(bough.BoughError, match="the batch is 1 texts, the cache has 2"):
        logits(model, tokens[:1], past_key_values=cache)
    with pytest.raises(bough.BoughError, match="tokens is 513, it must be at most trained_context, 512"):
        logits(model, ids(513), past_key_values=BoughCache(model))
    other = enabled()
    with pytest.raises(bough.BoughError, match="the BoughCache was made for another model"):
        logits(other, tokens, past_key_values=BoughCache(model))
    cache = BoughCache(model)
    cache.update(*[torch.zeros((1, 2, 3, 64))] * 2, 0)
    with pytest.raises(bough.BoughError, match="did not come to its attention"):
        cache.update(*[torch.zeros((1, 2, 3, 64))] * 2, 0)
    bough.transformers.enable(model, SMALL, extend=True)
    with pytest.raises(bough.BoughError, match="is not enabled any more"):
        logits(model, tokens, past_key_values=cache)


def test_layers_that_are_alike() -> None:
    def firsts(plan: str) -> list[int]:
        return [first_alike(plan, i) for i in range(6)]

    assert firsts('{"first": null, "layers": []}') == [0] * 6
    assert firsts('{"first": {"layers": 2, "k": 64}, "layers": []}') == [0, 0, 2, 2, 2, 2]
    assert firsts('{"layers": [{"layers": [1, 3], "mode": "dense"}, {"layers": [4], "k": 8}]}') == [0, 1, 0, 1, 4, 0]


# ---- the calls of PagedAttention ----


class OnCpu:
    """What PagedAttention is asked for, by attention(); decode always with every stage. Of the schedule it takes down what was due. It
    wants the means of 8 keys of every call, which are those of its texts."""

    stages, mean_keys = 2, 8

    def __init__(self, config: Any, calls: list[Any]) -> None:
        self.config, self.calls = config, calls

    def due_stage(self, counter: int, length: int) -> int:
        return 0 if counter % 4 == 0 else 1 if counter % 2 == 0 else 2

    def new_states(self, slots: int, like: Any) -> Any:
        self.calls.append(("states", self.config.layer, slots))
        return torch.zeros(slots)

    def new_workspace(self, like: Any) -> None:
        return None

    def new_means(self, q: Any, k: Any) -> bough.KeySummary:
        return bough.KeySummary(torch.full((k.shape[0], k.shape[1] // 8, *k.shape[2:]), torch.nan, dtype=q.dtype), 8)

    def summarise(self, k: Any, means: Any, *, lengths: Any, query_start: Any, rows: int, longest: int) -> None:
        assert int(query_start[-1]) == rows and int(lengths.max()) == longest <= k.shape[1]
        for s, (length, n) in enumerate(zip(lengths.tolist(), query_start.diff().tolist())):
            begin, end = (length - n) // 8, length // 8
            means.keys[s, begin:end] = k[s, begin * 8 : end * 8].unflatten(0, (-1, 8)).mean(1)

    def check_means(self, k: Any, lengths: Any, means: Any) -> None:
        for s, length in enumerate(lengths.tolist()):
            n = length // 8
            assert torch.equal(means.keys[s, :n], k[s, : n * 8].unflatten(0, (-1, 8)).mean(1))

    def rows(self, q: Any, k: Any, v: Any, length: int, sinks: Any) -> Any:
        c = self.config
        how = dict(keys_rotated=True) if c.keys_rotated else dict(frequencies=c.frequencies)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k[:length], v[:length]))
        how.update(layer=c.layer, scale=c.scale, sink_logits=sinks, trained_context=c.trained_context)
        return bough.attention(q, k, v, c.plan, **how)[0].transpose(0, 1)

    def prune(
        self, q: Any, k: Any, v: Any, *, lengths: Any, query_start: Any, longest: int, summary: Any, workspace: Any
    ) -> None:
        self.check_means(k, lengths, summary)
        assert int(lengths.max()) == longest <= k.shape[1] and int(query_start[-1]) == q.shape[0]

    def attend(self, q: Any, k: Any, v: Any, *, lengths: Any, query_start: Any, sink_logits: Any, **_: Any) -> Any:
        self.calls.append(("attend", self.config.layer, query_start.diff().tolist()))
        out = torch.empty_like(q)
        for s, length in enumerate(lengths.tolist()):
            a, b = query_start[s], query_start[s + 1]
            out[a:b] = self.rows(q[a:b], k[s], v[s], length, sink_logits) if b > a else 0
        return out

    def decode(
        self, q: Any, k: Any, v: Any, *, lengths: Any, states: Any, slots: int, slot: Any, stage: Any, least_stage: int,
        longest: int, summary: Any, sink_logits: Any, workspace: Any,
    ) -> Any:  # fmt: skip
        self.check_means(k, lengths, summary)
        assert slot.tolist() == list(range(slots)) and states.shape == (slots,) and int(stage.min()) == least_stage
        assert int(lengths.max()) == longest <= k.shape[1]
        self.calls.append(("decode", self.config.layer, stage.tolist()))
        texts = enumerate(lengths.tolist())
        return torch.cat([self.rows(q[s : s + 1], k[s], v[s], n, sink_logits) for s, n in texts])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    found = lambda config, *_: SimpleNamespace(attention=OnCpu(config, seen))  # noqa: E731
    monkeypatch.setattr(_attend, "find_attention", found)
    monkeypatch.setattr(_attend, "workspace_of", lambda *_: None)
    monkeypatch.setattr(_attend, "TorchArrays", lambda _: SimpleNamespace(stream=lambda: 0))
    monkeypatch.setattr(_attend, "_on_cpu", _attend._on_cuda)
    return seen


@pytest.mark.parametrize("extend", [False, True])
def test_texts_go_to_paged_attention_together(calls: list[Any], extend: bool) -> None:
    model = enabled("Llama", extend).bfloat16()
    tokens, mask = padded(320, 0, 17, 250)
    slices = [240, 260, 310, *range(311, 321)]
    expected = run(model, tokens, mask, dynamic(model), slices)
    got = run(model, tokens, mask, BoughCache(model), slices)
    assert worst(got[mask.bool()].float(), expected[mask.bool()].float()) < 2e-2
    of_layer = [call for call in calls if call[1] == 1]
    assert [rows for what, _, rows in of_layer if what == "attend"] == [[240, 223, 0], [20, 20, 10], [50, 50, 50]]
    assert [stage[0] for what, _, stage in of_layer if what == "decode"] == [0, 2, 1, 2, 0, 2, 1, 2, 0, 2]
    assert [call for call in calls if call[0] == "states"] == [("states", 0, 3), ("states", 1, 3)]


def test_the_schedule_begins_again_after_a_change(calls: list[Any]) -> None:
    model, tokens = enabled().bfloat16(), ids(230)
    cache = BoughCache(model)

    def stages(begin: int, end: int) -> list[int]:
        del calls[:]
        for at in range(begin, end):
            logits(model, tokens[:, at : at + 1], past_key_values=cache)
        return [call[2][0] for call in calls if call[0] == "decode" and call[1] == 0]

    logits(model, tokens[:, :200], past_key_values=cache)
    assert stages(200, 203) == [0, 2, 1]
    cache.crop(0)
    assert stages(203, 205) == [2, 0]
    cache.crop(-1)
    assert stages(204, 207) == [0, 2, 1]
    logits(model, tokens[:, 207:210], past_key_values=cache)
    assert stages(210, 212) == [0, 2]
    cache.reorder_cache(torch.tensor([0]))
    assert stages(212, 214) == [0, 2]
    cache = copy.deepcopy(cache)
    assert stages(214, 216) == [0, 2]
