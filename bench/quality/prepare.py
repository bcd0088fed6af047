"""Makes the folder that the laboratory reads, where the tokenizer and the model are: python3 -m quality.prepare --book book.txt

Writes words.npz (texts as tokens) and the model in parts that are small enough to be sent one at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from .gguf_file import GgufFile
from .words import make_words, save_words

PART = 48 << 20  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--book", type=Path, required=True, help="a long text, as tools/book.sh prints it")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--bough", default="build/release/bin/bough", help="the program, for its tokenizer")
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    options = parser.parse_args()

    def tokenise(text: str) -> list[int]:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            command = [options.bough, "tokenize", "--json", "-m", str(options.model), "-f", file.name]
            lines = subprocess.run(command, check=True, capture_output=True).stdout
        return [int(json.loads(line)["id"]) for line in lines.splitlines()]

    options.out.mkdir(parents=True, exist_ok=True)
    vocabulary = GgufFile(options.model).metadata["tokenizer.ggml.tokens"]
    words = make_words(tokenise, options.book.read_text(encoding="utf-8"), vocabulary)
    save_words(words, options.out / "words.npz")
    model = options.model.read_bytes()
    parts = [model[at : at + PART] for at in range(0, len(model), PART)]
    for i, part in enumerate(parts):
        (options.out / f"model.part{i}").write_bytes(part)
    print(f"{options.out}: {len(words.book)} tokens of the book, the model in {len(parts)} parts")


if __name__ == "__main__":
    main()
