"""Quality tasks as token sequences: passkey, named keys, cross-entropy. The recipes and the passkeys are those of `bough eval`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .words import NAMES, Tokens, Words

OFFSET_STEP, OFFSET_RANGE = 9973, 300_000
PPL_OFFSETS = (0, 100_000)
PPL_SCORED = 512
MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Prompt:
    """`text` is read first, then `question`, whose rows select for themselves; the logits of the last rows are scored against `answer`."""

    text: Tokens
    question: Tokens
    answer: Tokens  # its last token is not fed

    @property
    def fed(self) -> Tokens:
        return np.concatenate((self.text, self.question, self.answer[:-1]))


def _splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def key_of(seed: int, trial: int) -> str:
    """Five digits, the first of them not 0."""
    return str(10_000 + _splitmix64((_splitmix64(seed) + trial) & MASK) % 90_000)


def haystack(words: Words, text: str, trial: int, count: int) -> Tokens:
    """`count` tokens of "book" or "filler". Raises ValueError where the book is too short."""
    if text == "filler":
        return np.resize(words.filler, count)
    starts = len(words.book) - count + 1
    if starts < 1:
        raise ValueError(f"the book has {len(words.book)} tokens, {count} are needed")
    offset = trial * OFFSET_STEP % OFFSET_RANGE % starts
    return words.book[offset : offset + count]


def place_of(hay: Tokens, wanted: int, stops: Tokens) -> int:
    """The place after the full stop nearest to `wanted`, of two the earlier; `wanted` where there is none."""
    ends = np.flatnonzero(np.isin(hay, stops)) + 1
    if len(ends) == 0:
        return wanted
    return int(ends[np.argmin(np.abs(ends - wanted))])


def passkey(words: Words, text: str, length: int, trial: int, trials: int, seed: int) -> Prompt:
    """A prompt of `length` tokens, its question included. Raises ValueError."""
    digits = words.digits(key_of(seed, trial))
    needle, question = words.needle.fill(digits), words.question.pieces[0]
    hay = haystack(words, text, trial, length - len(words.introduction) - len(needle) - len(question))
    at = place_of(hay, int((trial + 0.5) / trials * len(hay)), words.stops)
    return Prompt(np.concatenate((words.introduction, hay[:at], needle, hay[at:])), question, digits)


def _with_keys(words: Words, text: str, room: int, names: int, trial: int, seed: int) -> tuple[Tokens, list[Tokens]]:
    """A text of `room` tokens with a key for each of the first `names` names, spread evenly, and the keys."""
    if not 1 <= names <= len(NAMES):
        raise ValueError(f"names is {names}, it must be 1 to {len(NAMES)}")
    keys = [words.digits(key_of(seed + 1 + trial, i)) for i in range(names)]
    needles = [words.named_needle[i].fill(keys[i]) for i in range(names)]
    hay = haystack(words, text, trial, room - len(words.introduction) - sum(len(n) for n in needles))
    at = [place_of(hay, int((i + 0.5) / names * len(hay)), words.stops) for i in range(names)]
    parts = [words.introduction]
    for begin, end, needle in zip([0, *at[:-1]], at, needles):
        parts += [hay[begin:end], needle]
    return np.concatenate((*parts, hay[at[-1] :])), keys


def named_keys(words: Words, text: str, length: int, names: int, trial: int, trials: int, seed: int) -> Prompt:
    """As passkey, with a key for each of `names` names; the trials ask for names spread evenly too."""
    asked = int((trial + 0.5) / trials * names)
    question = words.named_question[asked].pieces[0]
    tokens, keys = _with_keys(words, text, length - len(question), names, trial, seed)
    return Prompt(tokens, question, keys[asked])


def every_name(words: Words, text: str, length: int, names: int, trial: int, seed: int) -> list[Prompt]:
    """As named_keys, with a question for each name after one text; the longest prompt has `length` tokens."""
    questions = [words.named_question[i].pieces[0] for i in range(min(names, len(NAMES)))]
    tokens, keys = _with_keys(words, text, length - max(map(len, questions)), names, trial, seed)
    return [Prompt(tokens, question, key) for question, key in zip(questions, keys)]


def continuation(words: Words, length: int, trial: int) -> Prompt:
    """The book's `length` tokens from the trial's offset on, of which the last 512 are scored; nothing selects for itself."""
    starts = len(words.book) - length + 1
    if starts < 1 or length <= PPL_SCORED:
        raise ValueError(f"length is {length}, it must be {PPL_SCORED + 1} to {len(words.book)}")
    offset = PPL_OFFSETS[trial] % starts
    piece = words.book[offset : offset + length]
    return Prompt(piece[: length - PPL_SCORED], piece[:0], piece[length - PPL_SCORED :])


def decoded(words: Words, length: int, trial: int) -> Prompt:
    """As continuation, but each of the scored tokens' rows selects for itself, as an answer's do. Trials begin 100,000 tokens apart."""
    starts = len(words.book) - length + 1
    if starts < 1 or length <= PPL_SCORED + 1:
        raise ValueError(f"length is {length}, it must be {PPL_SCORED + 2} to {len(words.book)}")
    offset = trial * PPL_OFFSETS[1] % starts
    piece = words.book[offset : offset + length]
    asks = length - PPL_SCORED - 1
    return Prompt(piece[:asks], piece[asks : asks + 1], piece[asks + 1 :])
