"""BoughCache: keys and values of an enabled model, each text in one piece, with the state of its decode."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Optional, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from .._library import BoughError
from .._paged_cache import KeySummary
from ..paged import PagedAttention
from ._enabled import Enabled

ALIGNED = 64  # tokens; capacities are multiples of it
HANDLE = (
    "bough_layer"  # attribute of the keys that update() hands on, by which the attention function finds their layer
)


class DeviceInts:
    """Short lists of int32 on devices, which the layers of a forward call share. Nobody writes to them."""

    MOST = 32

    def __init__(self) -> None:
        self._made: OrderedDict[Any, Tensor] = OrderedDict()

    def __call__(self, values: Sequence[int], device: torch.device) -> Tensor:
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        key = (tuple(values), device, stream)
        if key not in self._made:
            host = torch.tensor(key[0], dtype=torch.int32)
            if device.type == "cuda":  # from pinned memory, so that the host does not wait
                host = host.pin_memory()
            self._made[key] = host.to(device, non_blocking=True)
            if len(self._made) > self.MOST:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def __deepcopy__(self, _memo: Any) -> DeviceInts:
        return DeviceInts()


class BoughLayer(CacheLayerMixin):
    """One layer of a BoughCache.

    Transformers counts columns, padding included; here text s begins at its first token, at column padding[s], and holds
    lengths()[s] tokens. keys and values [batch, kv_heads, capacity, d], of which a token's heads lie side by side. update() only hands
    the new rows on: where texts begin is known to the attention function, which calls store().

    counter  decode steps since the texts last changed otherwise, which the plan's refresh schedule goes by
    states   of PagedAttention.decode, a slot for each text; None before the first decode on a CUDA device
    means    of keys, on a CUDA device, where the plan reads them; those of text s hold for its first summarised[s] tokens
    """

    is_sliding = False
    is_croppable = True
    keys: Tensor
    values: Tensor

    def __init__(self, now: Enabled, max_length: int, ints: DeviceInts) -> None:
        super().__init__()
        self.now = now
        self.max_length = max_length
        self.ints = ints
        self.columns = 0
        self.padding: list[int] = []
        self.counter = 0
        self.states: Optional[Tensor] = None
        self.means: Optional[KeySummary] = None
        self.summarised: list[int] = []
        self._pending: Optional[tuple[Tensor, Tensor]] = None

    # ---- what Transformers calls ----

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = self._room(key_states, 0), self._room(value_states, 0)
        self.padding = []
        self.states = None
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands on the new rows, as they are: Bough's attention stores them. Raises BoughError."""
        if not self.now.active:
            raise BoughError("the model of this BoughCache is not enabled any more: its cache is of no use")
        if self._pending is not None:
            raise BoughError(
                "a forward call over this BoughCache did not come to its attention: call reset() and begin again"
            )
        if not self.is_initialized or (self.columns == 0 and key_states.shape[0] != self.keys.shape[0]):
            self.lazy_initialization(key_states, value_states)
        if key_states.shape[0] != self.keys.shape[0]:
            raise BoughError(f"the batch is {key_states.shape[0]} texts, the cache has {self.keys.shape[0]}")
        self._pending = (key_states, value_states)
        self.columns += key_states.shape[2]
        setattr(key_states, HANDLE, self)
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        """Forgets the texts and keeps the memory."""
        self.columns, self.padding, self._pending = 0, [], None
        self.counter = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove columns."""
        if tokens_to_remove > 0:
            raise BoughError(f"crop is {tokens_to_remove}, it must be 0 or less: the tokens to remove, negated")
        if tokens_to_remove < 0:
            self.columns = max(0, self.columns + tokens_to_remove)
            self.padding = self.padding if self.columns > 0 else []
            self.counter = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.batch_select_indices(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Text i becomes what text indices[i] was; a mask of the texts to keep will do too."""
        if not self.is_initialized:
            return
        picks = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        picks = picks.to(self.keys.device)
        self.keys, self.values = (_tokens(x).index_select(0, picks).transpose(1, 2) for x in (self.keys, self.values))
        if self.padding:
            self.padding = [self.padding[i] for i in picks.tolist()]
        self.counter, self.states, self.means = 0, None, None

    def offload(self) -> None:
        raise BoughError("a BoughCache is not offloaded", "unsupported")

    prefetch = offload

    def __deepcopy__(self, memo: Any) -> BoughLayer:
        copy = BoughLayer(self.now, self.max_length, memo.setdefault(id(self.ints), self.ints.__deepcopy__(memo)))
        if self.is_initialized:
            copy.lazy_initialization(self.keys, self.values)
            copy.keys, copy.values = (_tokens(x).clone().transpose(1, 2) for x in (self.keys, self.values))
            copy.columns, copy.padding = self.columns, list(self.padding)
        return copy

    # ---- what the attention function calls ----

    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [max(0, self.columns - n) for n in self.padding]

    def summary(self, attention: PagedAttention, q: Tensor) -> Optional[KeySummary]:
        """The means that `attention` reads of all the texts' keys, made where they are not there yet."""
        n, lengths, keys = attention.mean_keys, self.lengths(), self.tokens()[0]
        if n == 0:
            return None
        if self.means is None or self.means.step != n or self.means.keys.shape[1] != -(-keys.shape[1] // n):
            self.means = attention.new_means(q, keys)
            self.summarised = [0] * len(lengths)
        assert self.means is not None
        rows = [max(0, now // n * n - was) for now, was in zip(lengths, self.summarised)]
        if max(rows) > 0:
            starts = [0]
            for now, was in zip(lengths, self.summarised):
                starts.append(starts[-1] + max(0, now - was))
            where = {"lengths": self.ints(lengths, q.device), "query_start": self.ints(starts, q.device)}
            attention.summarise(keys, self.means, **where, rows=starts[-1], longest=max(lengths))
            self.summarised = [max(was, now // n * n) for now, was in zip(lengths, self.summarised)]
        return self.means

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Keys and values as [batch, capacity, kv_heads, d], contiguous."""
        return _tokens(self.keys), _tokens(self.values)

    def store(self, padding: list[int]) -> list[int]:
        """Takes in the rows of the last update(), text s beginning at column padding[s]: how many rows each text has got. Raises
        BoughError."""
        if self._pending is None:
            raise BoughError("the rows of this forward call are stored already")
        k, v = self._pending
        given = k.shape[2]
        self._begin_at(padding, self.columns - given)
        lengths = self.lengths()
        longest = max(lengths)
        if self.now.mode == "rotated" and longest > self.now.trained_context:
            raise BoughError(f"tokens is {longest}, it must be at most trained_context, {self.now.trained_context}")
        self._grow(longest)
        rows = [min(given, n) for n in lengths]
        for cache, new in zip(self.tokens(), (k.transpose(1, 2), v.transpose(1, 2))):
            if all(n == lengths[0] for n in lengths):
                cache[:, lengths[0] - rows[0] : lengths[0]] = new[:, given - rows[0] :]
            elif given == 1 and min(rows) == 1:
                texts = torch.arange(len(rows), device=cache.device)
                cache[texts, self.ints(lengths, cache.device).long() - 1] = new[:, 0]
            else:
                for s, (length, n) in enumerate(zip(lengths, rows)):
                    cache[s, length - n : length] = new[s, given - n :]
        self._pending = None
        return rows

    def _begin_at(self, padding: list[int], before: int) -> None:
        """Where `before` columns are there. What a new mask hides of a text leaves it; what an old one hid is not there any more."""
        if not self.padding:
            self.means = None
        self.summarised = [min(n, max(0, before - old)) for n, old in zip(self.summarised, self.padding)]
        for s, (old, new) in enumerate(zip(self.padding, padding)):
            had = max(0, before - old)
            if new < old and max(0, before - new) > had:
                raise BoughError(
                    f"attention_mask[{s}] begins at token {new}; the cache has the text from token {old} on, "
                    "the ones before were padding"
                )
            hidden = min(new - old, had)
            if hidden > 0:
                for cache in self.tokens():
                    cache[s, : had - hidden] = cache[s, hidden:had].clone()
                self.counter, self.means = 0, None
        self.padding = list(padding)

    def _grow(self, needed: int) -> None:
        capacity = self.keys.shape[2]
        if needed <= capacity:
            return
        room = max(needed + ALIGNED, 2 * capacity)
        if needed <= self.max_length:
            room = min(max(room, 2 * needed), self.max_length)
        room = -(-room // ALIGNED) * ALIGNED
        before = self.keys, self.values
        self.keys, self.values = self._room(self.keys, room), self._room(self.values, room)
        for old, new in zip(before, (self.keys, self.values)):
            new[:, :, :capacity] = old

    @staticmethod
    def _room(like: Tensor, tokens: int) -> Tensor:
        b, heads, _, d = like.shape
        return like.new_empty((b, tokens, heads, d)).transpose(1, 2)


class BoughCache(Cache):
    """The cache of a model that bough.transformers.enable() has enabled; generate() makes one where it is given none.

    max_length: tokens, about as many as the texts will have. Memory is taken for twice as many tokens as there are, and for no more than
    max_length while that is enough. None: what the model was trained for in mode "rotated", otherwise nothing is known.

    Of layers that see all of a text, keys and values lie as PagedAttention reads them, and on a CUDA device decode goes by the plan's
    refresh schedule. Sliding-window layers are Transformers' own. Prefixes, crop, reorder, reset and copy.deepcopy are as with
    DynamicCache; offloading is not there. Only attention of Bough can read it.
    """

    def __init__(self, model: Any, max_length: Optional[int] = None) -> None:
        now = model.__dict__.get("bough")
        if not isinstance(now, Enabled) or not now.active:
            raise BoughError(
                f"the {type(model).__name__} has no plan: call bough.transformers.enable before BoughCache"
            )
        most = 0 if max_length is None else max_length
        if now.mode == "rotated":
            most = min(most, now.trained_context) if most > 0 else now.trained_context
        ints = DeviceInts()
        layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
        super().__init__(layers=[BoughLayer(now, most, ints) if type(x) is DynamicLayer else x for x in layers])


def _tokens(x: Tensor) -> Tensor:
    return x.transpose(1, 2)
