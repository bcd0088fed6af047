"""Texts of the quality tasks as tokens: made once where the tokenizer is (prepare.py), kept in one .npz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Tokenise = Callable[[str], list[int]]

INTRODUCTION = (
    "There is an important pass key hidden inside a lot of text. Find it and memorize it. I will quiz you about it.\n\n"
)
NEEDLE = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "\n\nWhat is the pass key? The pass key is {key}"
NAMED_NEEDLE = " The pass key of {name} is {key}."
NAMED_QUESTION = "\n\nThe pass key of {name} is {key}"
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NAMES = """
James Mary John Patricia Robert Jennifer Michael Linda William Elizabeth David Barbara Richard Susan Joseph Jessica Thomas Sarah Charles
Karen Christopher Nancy Daniel Lisa Matthew Betty Anthony Margaret Mark Sandra Donald Ashley Steven Kimberly Paul Emily Andrew Donna
Joshua Michelle Kenneth Dorothy Kevin Carol Brian Amanda George Melissa Edward Deborah Ronald Stephanie Timothy Rebecca Jason Sharon
Jeffrey Laura Ryan Cynthia Jacob Kathleen Gary Amy Nicholas Shirley Eric Angela Jonathan Helen Stephen Anna Larry Brenda Justin Pamela
Scott Nicole Brandon Emma Benjamin Samantha Samuel Katherine Gregory Christine Frank Debra Alexander Rachel Raymond Catherine Patrick
Carolyn Jack Janet Dennis Ruth Jerry Maria Tyler Heather Aaron Diane Jose Virginia Henry Julie Adam Joyce Douglas Victoria Nathan Olivia
Peter Kelly Zachary Christina Kyle Lauren Walter Joan Harold Evelyn Jeremy Judith Megan Cheryl
""".split()
TRIED = ("10000", "98765", "30071")  # keys by which a template is cut; every digit but 2 and 4 is among them
KEY = 5  # digits


@dataclass(frozen=True)
class Template:
    """Token pieces; a key's digits stand between each two of them."""

    pieces: tuple[Tokens, ...]

    def fill(self, digits: Tokens) -> Tokens:
        parts = [self.pieces[0]]
        for piece in self.pieces[1:]:
            parts += [digits, piece]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Words:
    book: Tokens
    filler: Tokens
    introduction: Tokens
    digit: Tokens  # [10] token of each digit
    stops: Tokens  # tokens that end in a full stop
    needle: Template
    question: Template  # the answer is the key
    named_needle: tuple[Template, ...]  # for each of NAMES
    named_question: tuple[Template, ...]

    def digits(self, key: str) -> Tokens:
        return self.digit[[int(c) for c in key]]


def cut(tokenise: Tokenise, text: str, digit: Tokens) -> Template:
    """The pieces of a text with {key} in it. Raises ValueError where digits are no tokens of their own in it."""
    pieces: list[Tokens] = []
    token_of = {int(t): i for i, t in enumerate(digit)}
    for key in TRIED:
        tokens = np.array(tokenise(text.format(key=key)), np.int64)
        wanted = digit[[int(c) for c in key]]
        found, parts, last, at = text.count("{key}"), [], 0, 0
        while at + KEY <= len(tokens):
            if np.array_equal(tokens[at : at + KEY], wanted):
                parts.append(tokens[last:at])
                last = at = at + KEY
            else:
                at += 1
        parts.append(tokens[last:])
        if len(parts) != found + 1 or any(int(t) in token_of for part in parts for t in part):
            raise ValueError(f"the key of {text!r} is not made of {KEY} tokens of one digit each")
        if pieces and not all(np.array_equal(a, b) for a, b in zip(pieces, parts)):
            raise ValueError(f"the tokens of {text!r} around the key depend on the key")
        pieces = parts
    return Template(tuple(pieces))


def make_words(tokenise: Tokenise, book: str, vocabulary: list[str]) -> Words:
    digit = np.array([tokenise(str(i))[-1] for i in range(10)], np.int64)
    named = [
        (
            cut(tokenise, NAMED_NEEDLE.replace("{name}", name), digit),
            cut(tokenise, NAMED_QUESTION.replace("{name}", name), digit),
        )
        for name in NAMES
    ]
    return Words(
        book=np.array(tokenise(book), np.int64),
        filler=np.array(tokenise(FILLER), np.int64),
        introduction=np.array(tokenise(INTRODUCTION), np.int64),
        digit=digit,
        stops=np.array([i for i, piece in enumerate(vocabulary) if piece.endswith(".")], np.int64),
        needle=cut(tokenise, NEEDLE, digit),
        question=cut(tokenise, QUESTION, digit),
        named_needle=tuple(needle for needle, _ in named),
        named_question=tuple(question for _, question in named),
    )


def save_words(words: Words, path: Path) -> None:
    arrays: dict[str, Tokens] = {}
    for field, value in vars(words).items():
        for name, template in _templates(field, value):
            arrays.update({f"{name}.{i}": piece for i, piece in enumerate(template.pieces)})
        if isinstance(value, np.ndarray):
            arrays[field] = value
    if max(int(a.max(initial=0)) for a in arrays.values()) >= 1 << 16:
        raise ValueError("a token's id is 65,536 or more")
    # numpy's stub takes the names of arrays for options
    np.savez_compressed(path, **{name: a.astype(np.uint16) for name, a in arrays.items()})  # type: ignore[arg-type]


def load_words(path: Path) -> Words:
    with np.load(path) as file:
        arrays = {name: file[name].astype(np.int64) for name in file.files}

    def template(name: str) -> Template:
        pieces: list[Tokens] = []
        while f"{name}.{len(pieces)}" in arrays:
            pieces.append(arrays[f"{name}.{len(pieces)}"])
        return Template(tuple(pieces))

    plain = {name: arrays[name] for name in ("book", "filler", "introduction", "digit", "stops")}
    return Words(
        **plain,
        needle=template("needle"),
        question=template("question"),
        named_needle=tuple(template(f"named_needle.{i}") for i in range(len(NAMES))),
        named_question=tuple(template(f"named_question.{i}") for i in range(len(NAMES))),
    )


def _templates(field: str, value: object) -> list[tuple[str, Template]]:
    if isinstance(value, Template):
        return [(field, value)]
    if isinstance(value, tuple):
        return [(f"{field}.{i}", one) for i, one in enumerate(value)]
    return []
