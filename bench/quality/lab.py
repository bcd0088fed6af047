"""A laboratory: model, texts and one cache on a device; cells of trials, printed and appended to a file as they are done."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional

import torch
from torch import Tensor
from torch.nn import functional

from . import cost, tasks
from .attention import KvCache, PlanAttention, tail_of
from .delta import DeltaAttention
from .lists import ListAttention
from .llama import Attention, Model
from .probe import Probe, probe_torch
from .search_plan import SearchPlan, search_plan
from .words import Words, load_words


WINDOW = 1024  # tokens, where a plan names none


def title(task: str, names: int, text: str, length: int) -> str:
    return task + (str(names) if "name" in task else "") + f" {text} {length}"


@dataclass(frozen=True)
class Task:
    name: str  # passkey, named, every-name, ppl or ppl-decoded
    length: int
    text: str = "book"  # or filler
    trials: int = 10  # of every-name: texts, of which each is asked for all names
    names: int = 32
    seed: int = 0

    def prompt(self, words: Words, trial: int) -> tasks.Prompt:
        if self.name == "passkey":
            return tasks.passkey(words, self.text, self.length, trial, self.trials, self.seed)
        if self.name == "named":
            return tasks.named_keys(words, self.text, self.length, self.names, trial, self.trials, self.seed)
        if self.name == "every-name":
            return self.prompts(words, trial // self.names)[trial % self.names]
        if self.name == "ppl":
            return tasks.continuation(words, self.length, trial)
        if self.name == "ppl-decoded":
            return tasks.decoded(words, self.length, trial)
        raise ValueError(f"the task is {self.name!r}, it must be passkey, named, every-name, ppl or ppl-decoded")

    def prompts(self, words: Words, which: int) -> list[tasks.Prompt]:
        """All that ask about one text."""
        if self.name == "every-name":
            return tasks.every_name(words, self.text, self.length, self.names, which, self.seed)
        return [self.prompt(words, which)]

    @property
    def count(self) -> int:
        if self.name == "every-name":
            return self.trials * self.names
        return len(tasks.PPL_OFFSETS) if self.name == "ppl" else self.trials

    def __str__(self) -> str:
        return title(self.name, self.names, self.text, self.length)


@dataclass(frozen=True)
class Way:
    """How attention goes: a plan of the library, or a search in PyTorch."""

    name: str
    plan: Optional[Mapping[str, Any]] = None
    search: Optional[Mapping[str, Any]] = None

    def searched(self) -> Optional[SearchPlan]:
        return search_plan(self.search) if self.search is not None else cost.as_search(self.plan or {})

    def reads_like(self, other: Way) -> bool:
        """Whether the text's blocks follow the same plan: only rows that select for themselves may differ."""
        mine, theirs = ({k: v for k, v in (way.plan or {}).items() if k != "own"} for way in (self, other))
        return self.search is None and other.search is None and mine == theirs


@dataclass
class Cell:
    way: str
    task: str
    length: int
    text: str
    trials: int
    names: int
    seed: int
    done: int = 0  # trials; fewer where the time was up
    exact: float = 0.0
    digits: float = 0.0
    cross_entropy: float = 0.0
    seconds: float = 0.0  # of a trial, the mean without the first where there are more
    search_tflop: Optional[list[float]] = None  # of each stage
    attention_tflop: Optional[float] = None
    fitted: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)


class Tally:
    """A cell as its trials come in; prints a line for each unless `quiet`."""

    def __init__(self, cell: Cell, quiet: bool) -> None:
        self.cell, self.quiet = cell, quiet
        self.last = 0.0
        self._exact = self._right = self._answered = 0
        self._loss = self._seconds = self._first = 0.0

    def add(self, good: int, answered: int, nll: float, seconds: float) -> None:
        c = self.cell
        c.done += 1
        self.last = seconds
        self._first = self._first or seconds
        self._exact += good == answered
        self._right, self._answered = self._right + good, self._answered + answered
        self._loss, self._seconds = self._loss + nll, self._seconds + seconds
        c.exact, c.digits, c.cross_entropy = self._exact / c.done, self._right / self._answered, self._loss / c.done
        c.seconds = (self._seconds - self._first) / (c.done - 1) if c.done > 1 else seconds
        if not self.quiet:
            name = title(c.task, c.names, c.text, c.length)
            print(f"  {c.way} | {name} | {c.done - 1}: {good}/{answered} nll {nll:.3f} {seconds:.2f} s", flush=True)


class Lab:
    def __init__(self, folder: Path, device: str, scores: str = "triton", model: Optional[Path] = None) -> None:
        self.device = torch.device(device)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.words = load_words(folder / "words.npz")
        if model is None:
            model = folder / "model.gguf"
            if not model.exists():
                parts = sorted(folder.glob("model.part*"))
                model.write_bytes(b"".join(part.read_bytes() for part in parts))
        self.model = Model(model, self.device, dtype)
        self.cache = KvCache(self.model.shape, self.device, dtype)
        self.probe: Probe = probe_torch
        if scores == "triton" and self.device.type == "cuda":
            from .probe_triton import probe_triton

            self.probe = probe_triton

    def attention(self, way: Way, length: int) -> tuple[Attention, int]:
        """And how many last rows of a question select for themselves, at most."""
        if way.search is not None:
            plan = search_plan(way.search)
            return ListAttention(plan, self.cache, length, self.probe, self.device.type == "cuda"), plan.tail
        plan = dict(way.plan or {})
        every = int(plan.pop("delta", 0))
        paged = PlanAttention(plan, self.cache, length)
        if every == 0:
            return paged, tail_of(plan)
        return DeltaAttention(paged, self.cache, every, int(plan.get("window", WINDOW))), tail_of(plan)

    def trial(self, attention: Attention, tail: int, prompt: tasks.Prompt) -> tuple[int, int, float]:
        fed = torch.from_numpy(prompt.fed)
        own = min(tail, len(fed) - len(prompt.text)) if len(prompt.question) else 0
        return self.scored(self.model.logits(fed, attention, own, len(prompt.answer)), prompt)

    def scored(self, logits: Tensor, prompt: tasks.Prompt) -> tuple[int, int, float]:
        """Answer tokens that were the first choice, of how many, and their mean negative log-probability."""
        answer = torch.from_numpy(prompt.answer).to(self.device)
        right = int((logits.argmax(-1) == answer).sum())
        return right, len(prompt.answer), float(functional.cross_entropy(logits, answer))

    def cell(self, way: Way, task: Task, attention: Attention) -> Cell:
        cell = Cell(way.name, task.name, task.length, task.text, task.count, task.names, task.seed)
        cell.how = way.search if way.search is not None else way.plan or {}
        searched = way.searched()
        shape = self.model.shape
        if searched is not None:
            cell.search_tflop = [round(x, 2) for x in cost.search_tflop(searched, shape, task.length)]
        if searched is not None or (way.plan or {}).get("mode") == "dense":
            cell.attention_tflop = round(cost.attention_tflop(searched, shape, task.length), 2)
        if isinstance(attention, PlanAttention):
            cell.fitted = attention.fitted
        return cell

    def run(self, way: Way, task: Task, until: float = float("inf"), quiet: bool = False) -> Cell:
        """Stops before a trial that would end after `until` (time.monotonic)."""
        attention, tail = self.attention(way, task.length + 16)
        tally = Tally(self.cell(way, task, attention), quiet)
        for i in range(task.count):
            if time.monotonic() + 1.1 * tally.last > until:
                break
            prompt = task.prompt(self.words, i)
            begin = time.monotonic()
            tally.add(*self.trial(attention, tail, prompt), time.monotonic() - begin)
        return tally.cell

    def run_alike(self, ways: list[Way], task: Task, until: float = float("inf"), quiet: bool = False) -> list[Cell]:
        """Each text is read once, for all `ways`, which read alike; a trial's time is its question's and its share of the reading. Stops
        before a text that would end after `until`."""
        attentions = [self.attention(way, task.length + 16)[0] for way in ways]
        tallies = [Tally(self.cell(way, task, attention), quiet) for way, attention in zip(ways, attentions)]
        took = 0.0
        for which in range(task.trials):
            begin = time.monotonic()
            if begin + 1.1 * took > until:
                break
            prompts = task.prompts(self.words, which)
            text = torch.from_numpy(prompts[0].text)
            self.model.read(text, attentions[0], task.length + 16 - len(text))
            share = (time.monotonic() - begin) / len(prompts) / len(ways)
            for attention, tally in zip(attentions, tallies):
                for prompt in prompts:
                    asked = time.monotonic()
                    fed = torch.from_numpy(prompt.fed[len(text) :])
                    logits = self.model.ask(fed, attention, len(text), len(prompt.answer))
                    tally.add(*self.scored(logits, prompt), share + time.monotonic() - asked)
            took = time.monotonic() - begin
        return [tally.cell for tally in tallies]


HEAD = f"{'way':<34} {'task':<22} {'n':>3} {'exact':>6} {'digits':>6} {'loss':>7} {'s/trial':>8} {'search':>7} {'attend':>7} TFLOP"


def row(cell: Cell) -> str:
    task = title(cell.task, cell.names, cell.text, cell.length)
    exact = "" if cell.task.startswith("ppl") else f"{100 * cell.exact:.0f}"
    digits = "" if cell.task.startswith("ppl") else f"{100 * cell.digits:.0f}"
    search = "" if cell.search_tflop is None else f"{sum(cell.search_tflop):.1f}"
    attend = "" if cell.attention_tflop is None else f"{cell.attention_tflop:.1f}"
    return (
        f"{cell.way:<34} {task:<22} {cell.done:>3} {exact:>6} {digits:>6} {cell.cross_entropy:>7.3f} {cell.seconds:>8.2f} "
        f"{search:>7} {attend:>7}" + (f" {cell.search_tflop}" if cell.search_tflop else "")
    )


class Book:
    """Results as JSON lines; cells that are whole in it already are known."""

    def __init__(self, path: Optional[Path]) -> None:
        self.path = path
        self.cells: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.cells = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]

    def has(self, way: Way, task: Task) -> bool:
        wanted = (way.name, task.name, task.length, task.text, task.count, task.names, task.seed)
        for c in self.cells:
            if c["done"] == c["trials"] and wanted == tuple(
                c[f] for f in ("way", "task", "length", "text", "trials", "names", "seed")
            ):
                return True
        return False

    def add(self, cell: Cell) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
        print(row(cell), flush=True)


def run_all(lab: Lab, cells: list[tuple[Way, Task]], book: Book, budget: float, quiet: bool = False) -> list[Cell]:
    """In order, within `budget` seconds. A cell that fails is said and left out."""
    until = time.monotonic() + budget
    made: list[Cell] = []
    print(HEAD, flush=True)
    left = [(way, task) for way, task in cells if not book.has(way, task)]
    while left:
        if time.monotonic() > until:
            print(f"the time is up: {len(left)} cells of {len(cells)} were not begun", flush=True)
            break
        way, task = left[0]
        together = task.name != "ppl" and way.reads_like(way) and "delta" not in (way.plan or {})
        alike = [c for c in left if together and c[1] == task and c[0].reads_like(way)] or [left[0]]
        left = [c for c in left if c not in alike]
        try:
            if together:
                done = lab.run_alike([c[0] for c in alike], task, until, quiet)
            else:
                done = [lab.run(way, task, until, quiet)]
        except Exception as error:  # the other cells still go
            print(f"{way.name} | {task}: {type(error).__name__}: {error}", flush=True)
            continue
        for cell in done:
            if cell.done:
                book.add(cell)
                made.append(cell)
    return made
