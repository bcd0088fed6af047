"""attention() on the CPU against a textbook attention in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import everything, textbook, worst_row
from plans import SMALL, STREAMING

import bough


def texts(random, b, heads, kv_heads, rows, tokens, d=64):
    q = random.standard_normal((b, heads, rows, d), np.float32)
    return q, *(random.standard_normal((b, kv_heads, tokens, d), np.float32) for _ in range(2))


@pytest.mark.parametrize("heads,kv_heads,d", [(1, 1, 64), (4, 2, 64), (6, 1, 96), (2, 2, 128), (1, 1, 256)])
@pytest.mark.parametrize("rows,tokens", [(1, 1), (1, 70), (33, 100), (130, 130)])
def test_short_texts_are_seen_whole(random, heads, kv_heads, d, rows, tokens):
    q, k, v = texts(random, 2, heads, kv_heads, rows, tokens, d)
    o, lse = bough.attention(q, k, v, rope_theta=1e4, return_lse=True)
    expected, sums = textbook(q, k, v, everything, 1e4)
    assert o.shape == q.shape and o.dtype == np.float32 and lse.shape == q.shape[:3]
    assert worst_row(o, expected) < 1e-5
    assert np.abs(lse - sums).max() < 1e-4


@pytest.mark.parametrize("plan", ["dense", "streaming", "default", SMALL, json.dumps(STREAMING)])
def test_plans_agree_where_all_is_seen(random, plan):
    q, k, v = texts(random, 1, 2, 1, 20, 190)
    assert worst_row(bough.attention(q, k, v, plan, rope_theta=1e4), textbook(q, k, v, everything, 1e4)[0]) < 1e-5


def test_interleaved_pairs_softcap_and_no_rope(random):
    q, k, v = texts(random, 1, 2, 2, 5, 40)
    o = bough.attention(q, k, v, rope_theta=500.0, rope_pairs="interleaved")
    assert worst_row(o, textbook(q, k, v, everything, 500.0, "interleaved")[0]) < 1e-5
    o = bough.attention(3 * q, k, v, softcap=2.0)
    assert worst_row(o, textbook(3 * q, k, v, everything, softcap=2.0)[0]) < 1e-5
    assert worst_row(bough.attention(q, k, v, keys_rotated=True), textbook(q, k, v, everything)[0]) < 1e-5
    assert worst_row(bough.attention(q, k, v, scale=0.25), textbook(2 * q, k, v, everything)[0]) < 1e-5


def test_sink_logits_take_their_share(random):
    q, k, v = texts(random, 1, 2, 1, 3, 20)
    sinks = np.array([0.5, 30.0], np.float32)
    o, lse = bough.attention(q, k, v, sink_logits=sinks, return_lse=True)
    expected, sums = textbook(q, k, v, everything, sinks=sinks)
    assert worst_row(o, expected) < 1e-5
    assert np.abs(lse - sums).max() < 1e-4


def test_strides_and_types(random):
    q, k, v = texts(random, 2, 4, 2, 7, 90)
    expected = bough.attention(q, k, v, rope_theta=1e4)
    tokens_first = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (q, k, v)]
    assert np.array_equal(bough.attention(*tokens_first, rope_theta=1e4), expected)
    wider = [np.concatenate([x, x], axis=-1)[..., :64] for x in (q, k, v)]
    assert not wider[0].flags["C_CONTIGUOUS"]
    assert np.array_equal(bough.attention(*wider, rope_theta=1e4), expected)
    halves = [x.astype(np.float16) for x in (q, k, v)]
    assert bough.attention(*halves).dtype == np.float16
    frozen = q.copy()
    frozen.flags.writeable = False
    assert np.array_equal(bough.attention(frozen, k, v, rope_theta=1e4), expected)


def test_lengths_end_each_text(random):
    q, k, v = texts(random, 3, 2, 1, 4, 120)
    o = bough.attention(q, k, v, rope_theta=1e4, lengths=[4, 77, 120])
    for s, length in enumerate([4, 77, 120]):
        alone = bough.attention(q[s : s + 1], k[s : s + 1, :, :length], v[s : s + 1, :, :length], rope_theta=1e4)
        assert np.array_equal(o[s : s + 1], alone)


# Blocks [64 i, 64 i + 64) share the window that begins at the block's first row, in steps of 8; streaming has no tail.
def streaming_context(first_row):
    def context(position):
        r0 = max(first_row, position // 64 * 64)
        r1 = position // 64 * 64 + 64
        if min(r1, 700) <= 64 + 128:
            return everything(position)
        w0 = max(64, (r0 + 1 - 128) // 8 * 8)
        return np.concatenate([np.arange(64), np.arange(w0, position + 1)])

    return context


@pytest.mark.parametrize("rows", [1, 3, 200, 700])
def test_streaming_sees_sinks_and_window(random, rows):
    q, k, v = texts(random, 1, 2, 1, rows, 700)
    expected = textbook(q, k, v, streaming_context(700 - rows), 1e4)[0]
    assert worst_row(bough.attention(q, k, v, STREAMING, rope_theta=1e4), expected) < 1e-5


@pytest.mark.parametrize("plan", [SMALL, "hip"])
def test_pruned_rows_see_no_more_than_the_plan(random, plan):
    """What lies outside sinks, window and the chosen chunks changes nothing: at most so many keys have an effect."""
    q, k, v = texts(random, 1, 1, 1, 1, 1600)
    shown = []
    for first in range(0, 1600, 512):  # element e marks the e-th group of 8 tokens
        marked = np.zeros((1, 1, 1600, 64), np.float32)
        for token in range(first, min(1600, first + 512)):
            marked[..., token, (token - first) // 8] = 1
        o = bough.attention(q, k, marked, plan, rope_theta=1e4)[0, 0, 0]
        shown += [first + 8 * int(e) for e in np.flatnonzero(o > 0)]
    sinks, window, most = (64, 128, 64) if plan is SMALL else (64, 256, 512)
    assert set(range(0, sinks, 8)) <= set(shown)
    assert set(range(1600 - window, 1600, 8)) <= set(shown)
    chosen = [first for first in shown if sinks <= first < 1600 - window - 8]
    assert 0 < len(chosen) <= (most // 8 if plan is SMALL else most // 2)


def test_stages_find_the_key_that_matters(random):
    q, k, v = texts(random, 1, 1, 1, 1, 3000)
    k *= 0.1
    k[0, 0, 1024:1056] = 3 * q[0, 0, 0]
    expected = textbook(q, k, v, everything)[0]
    assert worst_row(bough.attention(q, k, v, SMALL), expected) < 1e-3
    assert worst_row(bough.attention(q, k, v, STREAMING), expected) > 0.5


def test_rows_do_not_depend_on_their_batch(random):
    q, k, v = texts(random, 3, 4, 2, 150, 900)
    o = bough.attention(q, k, v, SMALL, rope_theta=1e4)
    for s in range(3):
        alone = bough.attention(q[s : s + 1], k[s : s + 1], v[s : s + 1], SMALL, rope_theta=1e4)
        assert np.array_equal(o[s : s + 1], alone)


def test_the_layer_is_the_plans(random):
    q, k, v = texts(random, 1, 1, 1, 4, 700)
    plan = {**SMALL, "layers": [{"layers": [2], "mode": "dense"}]}
    expected = textbook(q, k, v, everything, 1e4)[0]
    assert worst_row(bough.attention(q, k, v, plan, layer=2, rope_theta=1e4), expected) < 1e-5
    assert worst_row(bough.attention(q, k, v, plan, layer=1, rope_theta=1e4), expected) > 1e-3


def test_a_sliding_window_prunes_nothing(random):
    q, k, v = texts(random, 1, 2, 1, 100, 500)
    window = lambda position: np.arange(max(0, position - 49), position + 1)  # noqa: E731
    o = bough.attention(q, k, v, SMALL, sliding_window=50)
    assert worst_row(o, textbook(q, k, v, window)[0]) < 1e-5


@pytest.mark.parametrize(
    "change,sentence",
    [
        ({"plan": "nonsense"}, "nonsense"),
        ({"plan": {**STREAMING, "window": -8}}, "window is -8"),
        ({"layer": -1}, "layer is -1, it must be 0 or more"),
        ({"scale": -1.0}, "scale is -1, it must be 0 or more"),
        ({"trained_context": 0}, "trained_context is 0, it must be 1 or more"),
        ({"trained_context": 20, "keys_rotated": True}, "tokens is 30, it must be at most trained_context, 20"),
        ({"sliding_window": -1}, "sliding_window is -1, it must be 0 or more"),
        ({"frequencies": [1.0] * 4 + [0.5]}, "elements, whose number is 10, it must be a multiple of 16"),
        ({"rope_theta": 1e4, "frequencies": [1.0] * 8}, "give one of them"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0, it must be more than 0"),
        ({"rope_pairs": "thirds"}, "rope_pairs is 'thirds', it must be one of interleaved, halves"),
        ({"lengths": [2]}, "lengths\\[0\\] is 2, it must be 3 to 30"),
    ],
)
def test_errors_name_value_and_limit(random, change, sentence):
    q, k, v = texts(random, 1, 2, 1, 3, 30)
    with pytest.raises(bough.BoughError, match=sentence):
        bough.attention(q, k, v, **change)


def test_errors_of_shapes(random):
    q, k, v = texts(random, 1, 2, 1, 3, 30)
    with pytest.raises(ValueError, match="q has 3 dimensions, it must have 4"):
        bough.attention(q[0], k, v)
    with pytest.raises(ValueError, match="v has shape"):
        bough.attention(q, k, v[:, :, :-1])
    with pytest.raises(ValueError, match="q has 30 rows, it must have 1 to the number of tokens, 3"):
        bough.attention(k, q, q)
    with pytest.raises(ValueError, match="head_dim is 32, it must be 64, 96, 128 or 256"):
        bough.attention(*(np.ascontiguousarray(x[..., :32]) for x in (q, k, v)))
    with pytest.raises(ValueError, match="the last stride of q is 2 elements, it must be 1"):
        bough.attention(np.repeat(q, 2, axis=-1)[..., ::2], k, v)
    with pytest.raises(ValueError, match="elements of type float64, on the CPU they must be float32 or float16"):
        bough.attention(q.astype(np.float64), k, v)
    with pytest.raises(ValueError, match="heads is 3, it must be a multiple of kv_heads, 2"):
        three = np.repeat(q[:, :1], 3, axis=1)
        bough.attention(three, np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1))
    assert issubclass(bough.BoughError, ValueError)
    with pytest.raises(bough.BoughError) as error:
        bough.attention(q, k, v, "nonsense")
    assert error.value.code == "not_found"


def test_break_even():
    assert bough.break_even_tokens(9, 0) == 5120
    assert 0 < bough.break_even_tokens(8, 0) <= bough.break_even_tokens(10, 0)
