"""attention() and PagedAttention on a CUDA device: against the CPU, compiled, captured in a graph, and in decode."""

from __future__ import annotations

import json

import pytest
from conftest import worst_row
from plans import MEANS, SMALL, STREAMING

import bough

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

TWO_STAGES = {
    **SMALL,
    "k": 128,
    "stages": [{"chunk": 64, "query_stride": 4}, {"chunk": 16, "keep": 256}],
    "window": 256,
}
PER_HEAD = {**SMALL, "lists": "kv_head"}
THETA = 1e4


def texts(b, heads, kv_heads, rows, tokens, d=64, seed=1):
    make = torch.Generator().manual_seed(seed)

    def normal(h, t):
        return torch.randn((b, h, t, d), generator=make).to(torch.bfloat16).cuda()

    return normal(heads, rows), normal(kv_heads, tokens), normal(kv_heads, tokens)


def rows_off(a, b, most):
    """The share of rows of a that are farther than `most` from b's."""
    a, b = a.double().cpu(), b.double().cpu()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1) > most).double().mean())


def on_cpu(q, k, v, plan, **options):
    return bough.attention(q.cpu().float(), k.cpu().float(), v.cpu().float(), plan, rope_theta=THETA, **options)


MOVING = [{**STREAMING, "positions": positions} for positions in ("streaming", "infllm", "dynamic-extend")]


@pytest.mark.parametrize("plan", ["dense", STREAMING, *MOVING])
@pytest.mark.parametrize("b,heads,kv_heads,d", [(1, 4, 1, 64), (2, 4, 2, 128), (3, 2, 2, 64)])
@pytest.mark.parametrize("rows,tokens", [(1, 1), (1, 900), (70, 70), (300, 1000)])
def test_cuda_equals_cpu(plan, b, heads, kv_heads, d, rows, tokens):
    q, k, v = texts(b, heads, kv_heads, rows, tokens, d)
    o, lse = bough.attention(q, k, v, plan, rope_theta=THETA, return_lse=True)
    expected, sums = on_cpu(q, k, v, plan, return_lse=True)
    assert o.shape == q.shape and o.dtype == q.dtype and o.is_cuda and lse.shape == q.shape[:3]
    assert worst_row(o.float().cpu(), expected) < 2e-2
    assert float((lse.cpu() - sums).abs().max()) < 2e-2


@pytest.mark.parametrize("plan", [SMALL, TWO_STAGES, PER_HEAD, MEANS])
@pytest.mark.parametrize("rows,tokens", [(1, 900), (70, 1000), (300, 1500)])
def test_cuda_equals_cpu_with_stages(plan, rows, tokens):
    """Rounding decides between chunks whose scores are nearly the same: blocks may differ there, most of them may not."""
    q, k, v = texts(2, 4, 2, rows, tokens)
    o = bough.attention(q, k, v, plan, rope_theta=THETA)
    assert rows_off(o, on_cpu(q, k, v, plan), 2e-2) < 0.25
    # Keys that all agree with the queries in a few chunks leave no doubt.
    k = k * 0.05
    k[:, :, 512:544] = (3 * q[:, :1, :1]).expand(-1, k.shape[1], 32, -1)
    q = q[:, :1, :1].expand_as(q).contiguous()
    o = bough.attention(q, k, v, plan)
    cpu = [x.cpu().float() for x in (q, k, v)]
    assert worst_row(o.float().cpu(), bough.attention(*cpu, plan)) < 2e-2


def test_strides_lengths_and_sinks():
    q, k, v = texts(3, 4, 2, 40, 700)
    expected = bough.attention(q, k, v, STREAMING, rope_theta=THETA)
    other = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(bough.attention(*other, STREAMING, rope_theta=THETA), expected)
    lengths = torch.tensor([40, 333, 700], dtype=torch.int32)
    o = bough.attention(q, k, v, STREAMING, rope_theta=THETA, lengths=lengths.cuda())
    assert worst_row(o.float().cpu(), on_cpu(q, k, v, STREAMING, lengths=lengths)) < 2e-2
    sinks = torch.tensor([0.0, 1.0, 3.0, 9.0])
    o = bough.attention(q, k, v, STREAMING, rope_theta=THETA, sink_logits=sinks.cuda())
    assert worst_row(o.float().cpu(), on_cpu(q, k, v, STREAMING, sink_logits=sinks)) < 2e-2


def test_fp8_keys_and_values():
    q, k, v = texts(2, 4, 2, 40, 700)
    k8, v8 = k.to(torch.float8_e4m3fn), v.to(torch.float8_e4m3fn)
    two = torch.tensor(2.0).cuda()
    o = bough.attention(q, k8, v8, STREAMING, rope_theta=THETA, v_scale=two)
    assert worst_row(o.float().cpu(), on_cpu(q, k8.float(), 2 * v8.float(), STREAMING)) < 2e-2


def test_compiled():
    q, k, v = texts(2, 4, 2, 70, 700)
    plan = json.dumps(SMALL)

    def twice(q, k, v):
        return 2 * bough.attention(q + 0, k, v, plan, rope_theta=THETA)

    assert torch.equal(torch.compile(twice, fullgraph=True)(q, k, v), twice(q, k, v))
    torch.library.opcheck(
        torch.ops.bough.attention.default,
        (q, k, v, "default", 0, [], "halves", 1.0, 0.0, 0.0, 0, False, 131072),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("plan", [SMALL, MEANS, STREAMING])
def test_captured_in_a_graph(plan):
    q, k, v = texts(2, 4, 2, 70, 1300)
    bough.attention(q, k, v, plan, rope_theta=THETA)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        o = bough.attention(q, k, v, plan, rope_theta=THETA)
    for seed in (2, 3):
        for x, y in zip((q, k, v), texts(2, 4, 2, 70, 1300, seed=seed)):
            x.copy_(y)
        graph.replay()
        assert torch.equal(o, bough.attention(q, k, v, plan, rope_theta=THETA))


def test_a_capture_without_a_call_before_is_refused():
    q, k, v = texts(1, 2, 1, 5, 77)
    bough.clear_cache()
    with pytest.raises(bough.BoughError, match="call it once before the capture"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            bough.attention(q, k, v, {**STREAMING, "sinks": 192}, rope_theta=THETA)
    torch.cuda.synchronize()


def paged(plan, tokens=2048, rows=2048, sequences=2):
    return bough.PagedAttention(
        plan,
        heads=4,
        kv_heads=2,
        head_dim=64,
        dtype=torch.bfloat16,
        page_tokens=16,
        rope_theta=THETA,
        trained_context=131072,
        max_rows=rows,
        max_sequences=sequences,
        max_length=tokens,
    )


def ints(*values):
    return torch.tensor(values, dtype=torch.int32).cuda()


def in_pages(x, order):
    """[b, h, t, d] as pages [b * t / 16, 16, h, d] in the given order."""
    b, h, t, d = x.shape
    pages = x.transpose(1, 2).reshape(b * t // 16, 16, h, d)
    out = torch.empty_like(pages)
    out[order] = pages
    return out


@pytest.mark.parametrize("plan", [SMALL, MEANS, STREAMING])
def test_pages_equal_contiguous(plan):
    q, k, v = texts(2, 4, 2, 100, 1024)
    attention = paged(plan)
    order = torch.randperm(128, generator=torch.Generator().manual_seed(5)).cuda()
    table = order.to(torch.int32).view(2, 64)
    rows = q.transpose(1, 2).reshape(200, 4, 64)
    call = {"lengths": ints(1024, 1024), "query_start": ints(0, 100, 200), "page_table": table}
    pages = in_pages(k, order), in_pages(v, order)
    means = attention.new_means(q, pages[0], table)
    assert (means is None) == (attention.mean_keys == 0) == (plan is not MEANS)
    if means is not None:
        where = {"lengths": call["lengths"], "page_table": table}
        attention.summarise(pages[0], means, **where)
        expected = pages[0].float().view(128, 2, 8, 2, 64).mean(2)
        assert worst_row(means.keys.float().cpu(), expected.cpu()) < 1e-2
        rest = bough.KeySummary(torch.zeros_like(means.keys), 8)  # those that end among the last 10 of each text
        attention.summarise(pages[0], rest, query_start=ints(0, 10, 20), rows=20, **where)
        last = table[:, -1].long()
        assert torch.equal(rest.keys[last], means.keys[last]) and int((rest.keys != 0).any(-1).any(-1).sum()) == 4
    attention.prune(rows, *pages, summary=means, **call)
    o = attention.attend(rows, *pages, **call)
    expected = bough.attention(q, k, v, plan, rope_theta=THETA)
    assert torch.equal(o.view(2, 100, 4, 64).transpose(1, 2), expected)
    chosen = attention.selection()
    assert chosen.blocks.shape[1] == 8 and int((chosen.blocks[:, 2] > 0).sum()) > 0
    if plan is not STREAMING:
        assert chosen.chunk == 8 and int(chosen.counts[:, 0].max()) == 64 // 8


@pytest.mark.parametrize("plan", [SMALL, MEANS, STREAMING])
def test_decode_that_always_refreshes_equals_a_last_row(plan):
    q, k, v = texts(2, 4, 2, 20, 1024)
    attention = paged(plan)
    states = attention.new_states(2, like=q)
    caches = k.transpose(1, 2), v.transpose(1, 2)
    means = attention.new_means(q, caches[0])
    for step in range(20):
        length = 1024 - 20 + step + 1
        if means is not None:
            attention.summarise(caches[0], means, lengths=ints(length, length))
        stage = attention.due_stage(step, length)
        assert stage == 0
        o = attention.decode(
            q[:, :, step].contiguous(),
            *caches,
            lengths=ints(length, length),
            states=states,
            slots=2,
            slot=ints(1, 0),
            stage=ints(stage, stage),
            least_stage=stage,
            summary=means,
        )
        one = bough.attention(q[:, :, step : step + 1], k[:, :, :length], v[:, :, :length], plan, rope_theta=THETA)
        assert worst_row(o.float().cpu(), one[:, :, 0].float().cpu()) < 2e-2, f"step {step}"


def test_the_tree_finds_what_stands_out():
    """Plan hip: keys that alone agree with the queries are among the 512 of 4,000, so that the result is as if all were seen."""
    q, k, v = texts(1, 4, 2, 64, 4000)
    k = k * 0.05
    k[:, :, 1024:1088] = (3 * q[:, :1, :1]).expand(-1, 2, 64, -1)
    q = q[:, :1, :1].expand_as(q).contiguous()
    o = bough.attention(q, k, v, "hip")
    assert worst_row(o.float().cpu(), bough.attention(*(x.cpu().float() for x in (q, k, v)), "hip")) < 2e-2


def test_write_fills_the_pages_of_each_token():
    _, k, v = texts(2, 4, 2, 1, 64)
    attention, order = paged("dense"), torch.tensor([3, 0, 7, 2, 1, 6, 4, 5]).cuda()
    table = order.to(torch.int32).view(2, 4)
    caches = torch.zeros((2, 8, 16, 2, 64), dtype=torch.bfloat16).cuda()

    def rows(x, *ranges):
        return torch.cat([x[s, :, a:b].transpose(0, 1) for s, (a, b) in enumerate(ranges)]).contiguous()

    first, last = ((0, 40), (0, 63)), ((40, 41), (63, 64))
    attention.write(
        rows(k, *first), rows(v, *first), *caches, lengths=ints(40, 63), query_start=ints(0, 40, 103), page_table=table
    )
    attention.write(rows(k, *last), rows(v, *last), *caches, lengths=ints(41, 64), page_table=table)
    for cache, x in zip(caches, (k, v)):
        x = x.clone()
        x[0, :, 41:] = 0
        assert torch.equal(cache, in_pages(x, order))
    with pytest.raises(bough.BoughError, match=r"v has 1 rows, it must have k's 2"):
        attention.write(rows(k, *last), rows(v, *last)[:1], *caches, lengths=ints(41, 64), page_table=table)


def test_write_quantises():
    _, k, v = texts(1, 4, 2, 1, 48)
    attention = bough.PagedAttention(
        "dense", heads=4, kv_heads=2, head_dim=64, kv_dtype="float8_e4m3fn", page_tokens=16, trained_context=4096,
        max_rows=64, max_sequences=1, max_length=64,
    )  # fmt: skip
    caches = [torch.zeros((1, 48, 2, 64), dtype=torch.float8_e4m3fn).cuda() for _ in range(2)]
    scales = [torch.zeros((1, 48, 2)).cuda() for _ in range(2)]
    rows = [x[0].transpose(0, 1).contiguous() for x in (k, v)]
    where = {"lengths": ints(48), "query_start": ints(0, 48)}
    attention.write(*rows, *caches, **where, k_scale=scales[0], v_scale=scales[1])
    for x, cache, scale in zip(rows, caches, scales):
        assert torch.allclose(scale[0], x.float().abs().amax(-1) / 448, rtol=1e-6, atol=0)
        assert torch.equal(cache[0].float(), (x.float() / scale[0][..., None]).to(torch.float8_e4m3fn).float())


def test_a_summary_of_keys():
    """Filled by write; scans that read it choose what they choose without it."""
    q, k, v = texts(2, 4, 2, 100, 1024)
    attention, order = paged(SMALL), torch.randperm(128, generator=torch.Generator().manual_seed(5)).cuda()
    call = {"lengths": ints(1024, 1024), "page_table": order.to(torch.int32).view(2, 64)}
    caches = torch.zeros((2, 128, 16, 2, 64), dtype=torch.bfloat16).cuda()
    summary = bough.KeySummary(torch.zeros((128, 2, 2, 64), dtype=torch.bfloat16).cuda(), 8)
    rows = [x.transpose(1, 2).reshape(2048, 2, 64) for x in (k, v)]
    attention.write(*rows, *caches, **call, query_start=ints(0, 1024, 2048), summary=summary)
    assert torch.equal(caches[0], in_pages(k, order))
    assert torch.equal(summary.keys, caches[0][:, ::8])
    call["query_start"] = ints(0, 100, 200)
    rows = q.transpose(1, 2).reshape(200, 4, 64)
    attention.prune(rows, *caches, **call)
    starts = attention.selection().starts.clone()
    attention.prune(rows, *caches, **call, summary=summary)
    assert torch.equal(attention.selection().starts, starts)
    attention.prune(rows, *caches, **call, summary=bough.KeySummary(torch.zeros_like(summary.keys), 8))
    assert not torch.equal(attention.selection().starts, starts)
    wide = bough.KeySummary(summary.keys[:, :1].contiguous(), 16)
    with pytest.raises(bough.BoughError, match="cache.summary_step is 16, it must be at most a quarter"):
        attention.prune(rows, *caches, **call, summary=wide)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cupy(dtype):
    """Arrays of CuPy give the bits that PyTorch's give, in one call and in decode."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    q, k, v = (x.to(getattr(torch, dtype)) for x in texts(2, 4, 2, 20, 700))
    try:
        expected = bough.attention(q, k, v, SMALL, rope_theta=THETA)
    except bough.BoughError as error:
        assert "this build has no kernels" in str(error)
        pytest.skip(str(error))
    try:
        theirs = [cupy.from_dlpack(x) for x in (q, k, v)]
    except (BufferError, TypeError, ValueError) as error:
        pytest.skip(f"CuPy {cupy.__version__} does not take {dtype}: {error}")

    def same(a, b):
        return isinstance(a, cupy.ndarray) and torch.equal(torch.from_dlpack(a), b)

    torch.cuda.synchronize()
    assert same(bough.attention(*theirs, SMALL, rope_theta=THETA), expected)
    attention = bough.PagedAttention(
        SMALL, heads=4, kv_heads=2, head_dim=64, dtype=dtype, rope_theta=THETA, trained_context=131072,
        max_rows=2, max_sequences=2, max_length=700,
    )  # fmt: skip
    rows = [q[:, :, -1].contiguous(), k.transpose(1, 2), v.transpose(1, 2)]
    ones = [ints(700, 700), ints(1, 0), ints(0, 0)]
    out = []
    for where in (torch, cupy):
        arrays = [where.from_dlpack(x) for x in (*rows, *ones)]
        states = attention.new_states(2, like=arrays[0])
        call = dict(zip(("lengths", "slot", "stage"), arrays[3:]), states=states, slots=2, least_stage=0)
        workspace = attention.new_workspace(arrays[0])
        out.append(attention.decode(*arrays[:3], **call, workspace=workspace))
        torch.cuda.synchronize()
        cupy.cuda.Device().synchronize()
    assert same(out[1], out[0])


def test_errors():
    q, k, v = texts(1, 2, 1, 3, 40)
    with pytest.raises(bough.BoughError, match="q has elements of type float32"):
        bough.attention(q.float(), k, v)
    with pytest.raises(bough.BoughError, match="k is on device cpu, it must be where q is"):
        bough.attention(q, k.cpu(), v)
    with pytest.raises(bough.BoughError, match="query_block is 32; CUDA kernels have blocks of 64"):
        bough.attention(q, k, v, '{"mode":"hip","sinks":64,"window":256,"tree":{"query_block":32}}')
    with pytest.raises(bough.BoughError, match="workspace has 8 bytes, it must have"):
        attention = paged(STREAMING)
        rows = q.new_zeros((1, 4, 64))
        cache = q.new_zeros((1, 16, 2, 64))
        small = torch.zeros(8, dtype=torch.uint8, device="cuda")
        attention.prune(rows, cache, cache, lengths=ints(1), query_start=ints(0, 1), workspace=small)
    with pytest.raises(bough.BoughError, match="k_cache has shape"):
        paged(STREAMING).prune(rows, cache[..., :32], cache, lengths=ints(1), query_start=ints(0, 1))
