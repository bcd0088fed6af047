"""What the tests share: a textbook attention in float64 and random texts."""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
import pytest


def turned(x: np.ndarray, positions: np.ndarray, theta: Optional[float], pairs: str = "halves") -> np.ndarray:
    """x [t, d] turned by RoPE at `positions` [t]."""
    if theta is None:
        return x
    d = x.shape[-1]
    angle = positions[:, None] * theta ** (-2.0 * np.arange(d // 2) / d)
    cos, sin = np.cos(angle), np.sin(angle)
    at = (slice(None, d // 2), slice(d // 2, None)) if pairs == "halves" else (slice(None, None, 2), slice(1, None, 2))
    a, b = x[:, at[0]], x[:, at[1]]
    y = np.empty_like(x)
    y[:, at[0]], y[:, at[1]] = a * cos - b * sin, a * sin + b * cos
    return y


def textbook(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    context: Callable[[int], np.ndarray],
    theta: Optional[float] = None,
    pairs: str = "halves",
    softcap: float = 0.0,
    sinks: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of each row over context(its position), tokens in order, RoPE by their ranks; the row's own token is the last."""
    b, heads, rows, d = q.shape
    tokens, group = k.shape[2], heads // k.shape[1]
    o, lse = np.zeros(q.shape), np.zeros(q.shape[:3])
    for s in range(b):
        for h in range(heads):
            for i in range(rows):
                seen = context(tokens - rows + i)
                ranks = np.arange(len(seen), dtype=np.float64)
                keys = turned(k[s, h // group, seen].astype(np.float64), ranks, theta, pairs)
                query = turned(q[s, h, i : i + 1].astype(np.float64), ranks[-1:], theta, pairs)[0]
                x = keys @ query / np.sqrt(d)
                if softcap > 0:
                    x = softcap * np.tanh(x / softcap)
                all_x = x if sinks is None else np.append(x, sinks[h])
                top = all_x.max()
                lse[s, h, i] = top + np.log(np.exp(all_x - top).sum())
                o[s, h, i] = np.exp(x - lse[s, h, i]) @ v[s, h // group, seen].astype(np.float64)
    return o, lse


def everything(position: int) -> np.ndarray:
    return np.arange(position + 1)


def worst_row(a: Any, b: Any) -> float:
    """The largest relative distance of a row of a from b's."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
