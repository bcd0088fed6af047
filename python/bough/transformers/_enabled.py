"""What enable() switched on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

NAME = "bough"  # in Transformers' tables of attention functions and masks
MODELS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(eq=False)
class Enabled:
    """What enable() switched on, as model.bough; str() says it in a line.

    mode             "rotated": Transformers turns keys at their own positions, a text is at most trained_context tokens long; "extend":
                     keys are cached unturned and Bough turns them by their ranks, a text may be longer
    plan             a preset's name, JSON or a file's path
    trained_context  tokens: the config's max_position_embeddings
    frequencies      mode "extend": radians a position of each pair, [dims / 2], with the model's own scaling; otherwise empty
    rope_magnitude   mode "extend": the factor of cosines and sines, 1 where the model has none
    """

    mode: str
    plan: str
    trained_context: int
    frequencies: tuple[float, ...] = ()
    rope_magnitude: float = 1.0
    undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        if self.mode == "extend":
            return f"extend: plan {self.plan}, keys cached unturned and turned by rank, texts beyond {self.trained_context} tokens too"
        return (
            f"rotated: plan {self.plan}, keys turned at their own positions, texts up to {self.trained_context} tokens"
        )

    def __deepcopy__(self, _memo: Any) -> Enabled:
        return self  # caches that are copied stay caches of this model

    @property
    def active(self) -> bool:
        """Until disable()."""
        return bool(self.undo)

    def rope(self) -> dict[str, Any]:
        """What attention() and Config have to know of positions."""
        if self.mode == "extend":
            return {"frequencies": self.frequencies, "rope_magnitude": self.rope_magnitude}
        return {"keys_rotated": True}
