"""The laboratory on the CPU: its search against the library's, its scores against loops, its prompts, files and costs."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: kernels run on the CPU

torch = pytest.importorskip("torch")
bough = pytest.importorskip("bough")

from quality import cost, tables, tasks, words  # noqa: E402
from quality.attention import KvCache, PlanAttention  # noqa: E402
from quality.delta import DeltaAttention, DenseRows  # noqa: E402
from quality.gguf_file import dequantise  # noqa: E402
from quality.lists import ListAttention, attend_torch  # noqa: E402
from quality.lab import Task, Way  # noqa: E402
from quality.llama import Layer, Model, Shape  # noqa: E402
from quality.probe import Turn, probe_torch  # noqa: E402
from quality.search import NONE, Search, blocks_of, coarse, grouped, summary  # noqa: E402
from quality.search_plan import SearchPlan, Stage, search_plan  # noqa: E402

CPU = torch.device("cpu")
SHAPE = Shape(4, 9, 3, 64, 1e5, 1e-5, 8192)
STAGES = [dict(chunk=64, stride=4), dict(chunk=16, keep=1024, stride=4), dict(chunk=8, keep=1024, stride=1)]
SEARCH = dict(sinks=64, window=256, stages=STAGES, k=512, k_layers=[[0, 3, 1024]])
PLAN = dict(
    sinks=64,
    window=256,
    stages=[{("query_stride" if n == "stride" else n): x for n, x in s.items()} for s in STAGES],
    k=512,
    row_k=0,
    first=dict(layers=3, k=1024),
    refresh=[16, 8, 4],
)


def rows_of(seed: int, n: int) -> tuple[Any, Any, Any]:
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randn(n, 9, 64, generator=g) * 2, torch.randn(n, 3, 64, generator=g) * 2
    return q, k, torch.randn(n, 3, 64, generator=g)


def apart(a: Any, b: Any) -> float:
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


@pytest.mark.parametrize("sharing", ["layer", "kv_head"])
def test_the_search_finds_what_the_library_finds(sharing: str) -> None:
    one = PlanAttention({**PLAN, "lists": sharing}, KvCache(SHAPE, CPU, torch.float32), 4096)
    cache = KvCache(SHAPE, CPU, torch.float32)
    other = ListAttention(search_plan({**SEARCH, "lists": sharing}), cache, 4096, probe_torch, False)
    one.start(2000)
    other.start(2000)
    for first, n, own in ((0, 1792, False), (1792, 130, False), (1922, 9, True)):
        for layer in (2, 3):
            q, k, v = rows_of(first + layer, n)
            assert apart(other(layer, q, k, v, first, own), one(layer, q, k, v, first, own)) < 1e-4


class FakePaged:
    """What ListPaged asks of PagedAttention, on the CPU."""

    def __init__(self, plan: dict[str, Any], **options: Any) -> None:
        self.own, self.cut = plan["tail"] > 0, plan["sinks"] + plan["window"] + plan["k"]
        room = options["max_rows"] // (1 if self.own else 64) + 2
        heads = 1 if plan["lists"] == "layer" else options["kv_heads"]
        self.starts = torch.full((room, heads, plan["k"] // 8), -1, dtype=torch.int32)
        self.counts = torch.full((room, 4), -1, dtype=torch.int32)
        self.plan = SearchPlan(sinks=plan["sinks"], window=plan["window"], stages=(Stage(64), Stage(8, 1024)), k=512)
        self.k = plan["k"]
        probe = torch.zeros((1, 1, 1, 64))
        bough.attention(probe, probe, probe, plan, trained_context=8192)  # the plan is one that the library takes

    def prune(self, q: Any, **batch: Any) -> None:
        self.counts.fill_(-1)

    def selection(self) -> Any:
        return SimpleNamespace(starts=self.starts, counts=self.counts)

    def attend(self, q: Any, k_cache: Any, v_cache: Any, longest: int, **batch: Any) -> Any:
        blocks = blocks_of(self.plan, self.k, longest - len(q), len(q), self.own, CPU)
        n = len(blocks.rows)
        assert (self.counts[:n, 0] >= 0).all()
        there = torch.arange(self.starts.shape[2])[None, None] < self.counts[:n, :1, None]
        starts = torch.where(there, self.starts[:n], NONE)
        k, v = k_cache[0].transpose(0, 1), v_cache[0].transpose(0, 1)
        return attend_torch(q, k, v, blocks, starts, 64, 8, Turn(64, 1e5, 8192, CPU))


def test_lists_are_written_where_paged_attention_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bough, "PagedAttention", FakePaged)
    plan = search_plan({**SEARCH, "share": 2})
    ways = [
        ListAttention(plan, KvCache(SHAPE, CPU, torch.float32), 4096, probe_torch, paged) for paged in (True, False)
    ]
    for way in ways:
        way.start(2000)
    for first, n, own in ((0, 1792, False), (1792, 100, False), (1892, 5, True)):
        q, k, v = rows_of(first, n)
        a, b = (way(3, q, k, v, first, own) for way in ways)
        assert apart(a, b) < 1e-5


def test_probe_is_the_best_product() -> None:
    q, keys = torch.randn(2, 3, 5, 64), torch.randn(3, 40, 64)
    index, at = torch.randint(0, 40, (2, 3, 7)), torch.randint(0, 99, (2, 1, 7))
    turn = Turn(64, 1e4, 100, CPU)
    got = probe_torch(q, keys, index.int(), at.int(), turn)
    for b, h, j in ((0, 0, 0), (1, 2, 6), (0, 1, 3)):
        key = keys[h, index[b, h, j]]
        angle = float(at[b, 0, j]) * 1e4 ** (-torch.arange(32) / 32)
        low = key[:32] * angle.cos() - key[32:] * angle.sin()
        high = key[32:] * angle.cos() + key[:32] * angle.sin()
        assert float(got[b, h, j]) == pytest.approx(float((q[b, h] @ torch.cat((low, high))).max()), abs=1e-3)


def test_triton_scores_are_those_of_torch() -> None:
    pytest.importorskip("triton")
    probe_triton = pytest.importorskip("quality.probe_triton").probe_triton
    turn = Turn(64, 1e5, 8192, CPU)
    for m, d, turns, heads in ((20, 64, False, 1), (12, 64, True, 3), (3, 128, False, 1)):
        q, keys = torch.randn(2, 3, m, d).half(), torch.randn(3, 300, d).half()
        index = torch.randint(0, 300, (1 if heads == 1 else 2, heads, 150), dtype=torch.int32)
        at = torch.randint(0, 8000, (2, 1, 150), dtype=torch.int32) if turns else None
        assert (
            float((probe_triton(q, keys, index, at, turn) - probe_torch(q, keys, index, at, turn)).abs().max()) < 1e-3
        )


def lists_of(plan: SearchPlan, layer: int = 3, n: int = 1600, share: int = 1) -> tuple[Any, Any, Any, Any]:
    q, k, _ = rows_of(5, n)
    keys = k.transpose(0, 1).contiguous()
    blocks = blocks_of(plan, plan.k_of(layer), 0, n, False, CPU)
    search = Search(plan, layer, q, keys, probe_torch, Turn(64, 1e5, 8192, CPU), 8192)
    return search.run(grouped(blocks, share, CPU), 64 * share), blocks, q, keys


def test_exact_selection_takes_the_best_chunks() -> None:
    plan = search_plan({**SEARCH, "stages": [dict(chunk=8, score="exact")], "k_layers": []})
    starts, blocks, q, keys = lists_of(plan)
    turned = Turn(64, 1e5, 8192, CPU)(q / 8, torch.tensor(plan.scan_window))
    b = len(blocks.rows) - 2
    rows = turned[b * 64 : b * 64 + 64]
    best = torch.stack([(rows[:, 3 * h : 3 * h + 3].flatten(0, 1) @ keys[h].T).amax(0) for h in range(3)]).amax(0)
    chunk = best[64 : blocks.w0[b]].view(-1, 8).amax(1)
    wanted = (chunk.topk(64).indices * 8 + 64).sort().values
    assert starts[b, 0].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "first", [dict(score=s, piece=8) for s in ("mean", "minmax")] + [dict(rounds=1), dict(score="bit1")]
)
@pytest.mark.parametrize("more", [dict(), dict(reduce="mass"), dict(share=4)])
def test_every_list_is_whole_and_before_the_window(first: dict[str, Any], more: dict[str, Any]) -> None:
    stages = [{**STAGES[0], **first}, *STAGES[1:]]
    plan = search_plan({**SEARCH, "stages": stages, "first": 0, **more})
    starts, blocks, _, _ = lists_of(plan, share=plan.share)
    groups = grouped(blocks, plan.share, CPU)
    for w0, found in zip(groups.w0, starts[:, 0]):
        real = found[found < NONE]
        assert len(set(real.tolist())) == len(real) and torch.equal(real, real.sort().values)
        assert all(64 <= s < w0 and s % 8 == 0 for s in real.tolist())
        assert len(real) == (64 if w0 > 64 + 512 else max(0, w0 - 64) // 8)


def test_bounds_and_copies() -> None:
    keys, q = torch.randn(1, 64, 32), torch.randn(9, 32)
    bounds = summary(keys, 0, 8, "minmax")
    rows = torch.cat((q.clamp(min=0), q.clamp(max=0)), -1)
    assert bool((rows @ bounds[0].T >= (q @ keys[0].T).view(9, 8, 8).amax(-1) - 1e-4).all())
    assert torch.allclose(summary(keys, 0, 8, "mean")[0, 1], keys[0, 8:16].mean(0), atol=1e-6)
    far = [float((coarse(keys, score) - keys).norm() / keys.norm()) for score in ("int8", "int4", "bit1")]
    assert far[0] < 0.01 < far[1] < 0.12 < far[2] < 0.7


def test_quantised_blocks() -> None:
    scale, least = np.float16(0.5), np.float16(-2)
    q4 = scale.tobytes() + least.tobytes() + bytes(i | (15 - i) << 4 for i in range(16))
    wanted = [0.5 * i - 2 for i in [*range(16), *reversed(range(16))]]
    assert dequantise(np.frombuffer(q4, np.uint8), 3).tolist() == wanted
    q8 = scale.tobytes() + np.arange(-16, 16, dtype=np.int8).tobytes()
    assert dequantise(np.frombuffer(q8, np.uint8), 8).tolist() == [0.5 * i for i in range(-16, 16)]


def letters(text: str) -> list[int]:
    return [ord(c) for c in text]


def test_prompts(tmp_path: Any) -> None:
    made = words.make_words(letters, "In the beginning. " * 900, [chr(i) for i in range(256)])
    words.save_words(made, tmp_path / "words.npz")
    w = words.load_words(tmp_path / "words.npz")
    prompt = tasks.passkey(w, "book", 4000, 3, 10, 0)
    text = "".join(map(chr, prompt.text))
    key = tasks.key_of(0, 3)
    assert len(prompt.text) + len(prompt.question) == 4000 and f". The pass key is {key}. Remember it. {key} is" in text
    assert "".join(map(chr, prompt.answer)) == key and abs(text.index(key) / 4000 - 0.35) < 0.03
    named = tasks.named_keys(w, "filler", 8000, 8, 1, 4, 0)
    text, question = "".join(map(chr, named.text)), "".join(map(chr, named.question))
    assert text.count(" The pass key of ") == 8 and len(text) + len(question) == 8000
    assert question.strip() + " " + "".join(map(chr, named.answer)) + "." in text
    every = tasks.every_name(w, "filler", 8000, 8, 1, 0)
    assert len(every) == 8 and max(len(p.text) + len(p.question) for p in every) == 8000
    asked = "".join(map(chr, every[5].question)).strip() + " " + "".join(map(chr, every[5].answer)) + "."
    assert all(p.text is every[0].text for p in every) and asked in "".join(map(chr, every[5].text))
    piece = tasks.continuation(w, 2000, 1)
    assert np.array_equal(np.concatenate((piece.text, piece.answer)), w.book[100_000 % 14_201 :][:2000])
    rows = tasks.decoded(w, 2000, 1)
    assert np.array_equal(rows.fed, w.book[100_000 % 14_201 :][:1999]) and np.array_equal(rows.answer, piece.answer)
    assert len(rows.question) == 1


def test_costs_are_those_counted_by_hand() -> None:
    ends = np.array([64 * 1024 + 256.0])
    descents = {
        "stages": [
            {"chunk": 64, "query_stride": 4},
            {"chunk": 16, "keep": 32768, "query_stride": 4},
            {"chunk": 8, "keep": 8192},
        ]
    }
    for plan, keys in ((cost.as_search(descents), (14 * 16, 10 * 16, 8 * 64)), (SearchPlan(), (8 * 4, 2 * 16, 2 * 64))):
        assert plan is not None
        shape = Shape(30, 9, 3, 64, 1e5, 1e-5, 8192)
        flop = [cost.stage_cost(plan, i, 2048, ends, shape) for i in range(3)]
        assert flop == pytest.approx([chunks * n * 9 * 128 for chunks, n in zip((1024, 2048, 1024), keys)])
    assert cost.as_search({"mode": "stages"}) == SearchPlan(k=512)


@pytest.mark.parametrize(
    "wrong", [dict(k=100), dict(stages=[dict(chunk=64, score="best")]), dict(share=3), dict(lists="head")]
)
def test_wrong_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must|needed"):
        search_plan(wrong)


def test_rows_by_themselves_may_follow_a_plan_of_their_own() -> None:
    sinks = {**PLAN, "mode": "streaming", "refresh": [8]}
    for field in ("stages", "k", "row_k", "first"):
        del sinks[field]
    shared, own, both = (
        PlanAttention(plan, KvCache(SHAPE, CPU, torch.float32), 4096) for plan in (PLAN, sinks, {**PLAN, "own": sinks})
    )
    for way in (shared, own, both):
        way.start(2000)
    for first, n, single in ((0, 1984, False), (1984, 9, True)):
        q, k, v = rows_of(first, n)
        a, b, c = (way(3, q, k, v, first, single) for way in (shared, own, both))
        assert torch.equal(c, b if single else a)
        assert apart(a, b) > 1e-3


def random_model() -> Model:
    g = torch.Generator().manual_seed(3)

    def weight(*shape: int) -> Any:
        return torch.randn(*shape, generator=g) / shape[-1] ** 0.5

    made = object.__new__(Model)
    made.shape, made.device, made.dtype = SHAPE, CPU, torch.float32
    made.embedding, made.norm = weight(50, 576) * 20, torch.ones(576)
    made.head = made.embedding
    ones = torch.ones(576)
    made.layers = [
        Layer(ones, weight(15 * 64, 576), weight(576, 576), ones, weight(2 * 96, 576), weight(576, 96))
        for _ in range(SHAPE.layers)
    ]
    return made


def test_questions_after_one_text_are_as_if_each_came_with_it() -> None:
    model, cache = random_model(), KvCache(SHAPE, CPU, torch.float32)
    way = PlanAttention(PLAN, cache, 4096)
    text = torch.arange(1800) * 7 % 50
    questions = [torch.tensor(q) for q in ([3, 1, 4], [1, 5, 9, 2, 6], [3, 1, 4])]
    whole = [model.logits(torch.cat((text, q)), way, len(q), 2) for q in questions]
    model.read(text, way, 10)
    for q, logits in zip(questions, whole):
        assert torch.allclose(model.ask(q, way, len(text), 2), logits, atol=1e-4)
    assert not torch.allclose(whole[0], whole[1], atol=1e-2)


def test_ways_that_differ_in_single_rows_read_alike() -> None:
    a, b, c = (Way("", plan=p) for p in (PLAN, {**PLAN, "own": PLAN}, {**PLAN, "k": 1024}))
    assert a.reads_like(b) and not a.reads_like(c) and not a.reads_like(Way("", search=SEARCH))
    task = Task("every-name", 8192, trials=3, names=8)
    assert task.count == 24 and str(task) == "every-name8 book 8192"


@pytest.mark.parametrize("trained, window", [(8192, 100), (256, 100), (256, 300)])
def test_dense_rows_are_attention_with_far_keys_at_the_window(trained: int, window: int) -> None:
    shape = Shape(1, 9, 3, 64, 1e5, 1e-5, trained)
    window = min(window, trained)
    q, k, v = rows_of(1, 700)
    at = torch.tensor([0, 64, 99, 100, 500])
    got = DenseRows(shape, window, CPU)(q[at], k.transpose(0, 1), v.transpose(0, 1), at)
    turn = Turn(64, 1e5, 700, CPU)
    for i, t in enumerate(at.tolist()):
        distance = (t - torch.arange(t + 1)).clamp(max=699 if trained >= 700 else window - 1)
        for h in (0, 8):
            keys = turn(k[: t + 1, h // 3], 699 - distance)
            weights = (keys @ turn(q[t, h], 699) / 8).softmax(0)
            assert torch.allclose(got[i, h], weights @ v[: t + 1, h // 3], atol=1e-4)


def test_the_correction_makes_every_nth_row_dense() -> None:
    plan, cache = {**PLAN, "first": None}, KvCache(SHAPE, CPU, torch.float32)
    plain = PlanAttention(plan, KvCache(SHAPE, CPU, torch.float32), 4096)
    delta = DeltaAttention(PlanAttention(plan, cache, 4096), cache, 32, 256)
    for way in (plain, delta):
        way.start(2000)
    q, k, v = rows_of(0, 1984)
    a, b = (way(3, q, k, v, 0, False) for way in (plain, delta))
    rows = torch.arange(0, 1984, 32)
    exact = delta.dense(q[rows], k.transpose(0, 1), v.transpose(0, 1), rows)
    assert apart(b[::32], exact) < 1e-4 and apart(a[::32], exact) > 0.1
    assert torch.allclose(b[100] - a[100], b[96] - a[96], atol=1e-5)
    assert apart(a[:800], b[:800]) < 1e-3  # dense as it is
    single = rows_of(2, 5)
    assert torch.equal(*(way(3, *single, 1984, True) for way in (plain, delta)))


@pytest.mark.parametrize("table", tables.TABLES)
def test_plans_of_the_tables_are_valid(table: str) -> None:
    q, k, v = (x.transpose(0, 1)[None] for x in rows_of(1, 3))
    for way, task in tables.cells(table):
        assert task.count > 0
        for plan in (way.plan or {}, (way.plan or {}).get("own", {})):
            text = json.dumps({name: value for name, value in plan.items() if name not in ("own", "delta")})
            assert bough.attention(q, k, v, text, rope_theta=1e5, trained_context=8192).shape == q.shape
