"""PagedAttention: pruning and attention of one layer over a KV cache that is yours, on a CUDA device."""

from __future__ import annotations

from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from . import _library
from ._arrays import arrays_of, on_device
from ._checks import check_bytes, check_last, check_type, floats, ints, steps
from ._config import Config, Plan, check_pairs, dtype_name, plan_text, rope_frequencies
from ._dlpack import View, view
from ._library import BoughError, Limits, Rows, Selection, States, call
from ._paged_cache import KeySummary, cache_of


@dataclass(frozen=True)
class Selected:
    """Where a prune's choice is: int32 arrays inside the workspace, valid until its next use."""

    blocks: Any  # [nb, 8]: sequence, first row in q, rows (0: none), position of the first row, w0, sinks, -, -
    counts: Any  # [nb, 4]: selected chunks, -, -, -
    starts: Any  # [nb, list heads, capacity] first tokens of the selected chunks, ascending
    chunk: int  # tokens


class PagedAttention:
    """Of one layer; see include/bough/paged_attention.h for the contract of every call.

    plan: a preset's name, JSON, a file or a mapping; it is fitted to `trained_context` (tokens). heads is a multiple of kv_heads, at most
    16 times as many; head_dim is 64, 96, 128 or 256. dtype (of q and o): "bfloat16" or "float16"; kv_dtype: the same (None),
    "float8_e4m3fn" or "int8". Types of torch are taken too. RoPE: `rope_theta` (with `rope_dims` of head_dim elements turned) or
    `frequencies` [dims / 2] in radians a position; neither: nothing turns. `rope_pairs`: "halves" (i, i + dims/2) or "interleaved". Keys
    lie in the cache as they come, not turned, unless `keys_rotated`, where texts are at most trained_context long. `scale`: of q.k, None
    for 1 / sqrt(head_dim). max_rows, max_sequences (at most 1024) and max_length (tokens) bound a call and size the workspace. `device`:
    an index, None for the current one.

    Arrays are PyTorch's or CuPy's, on the device:
        q                   [rows, heads, head_dim], any strides but the last
        k_cache, v_cache    [pages, page_tokens, kv_heads, head_dim] with `page_table` [sequences, pages a sequence] int32, otherwise
                            [sequences, tokens, kv_heads, head_dim]; any strides but the last (transpose a cache with heads first)
        k_scale, v_scale    of fp8 and int8: float32, one number or the cache's first three dimensions; value = stored * scale
        summary             KeySummary of k_cache: means of keys where mean_keys is not 0 (the plan `default`), and then not optional; of
                            other plans keys that scans take from there
        lengths             [sequences] int32: tokens, the rows of this call included
        query_start         [sequences + 1] int32: rows [query_start[s], query_start[s + 1]) belong to sequence s
        longest             tokens, an upper bound of lengths; None for max_length
        sink_logits         [heads] float32: of each head a logit that takes part in the softmax and has no value

    Calls run on `stream` (an integer), by default on the current stream of the arrays' library, and do not wait. A workspace belongs to
    one stream at a time; None is one of the object's own, made at the first call. Calls can be captured in a CUDA graph when all memory
    was there before, and the object has to outlive the graph. Raises BoughError.
    """

    def __init__(
        self,
        plan: Plan = "default",
        *,
        layer: int = 0,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: Any = "bfloat16",
        kv_dtype: Any = None,
        page_tokens: int = 64,
        rope_theta: Optional[float] = None,
        rope_dims: Optional[int] = None,
        frequencies: Optional[Sequence[float]] = None,
        rope_pairs: str = "halves",
        rope_magnitude: float = 1.0,
        scale: Optional[float] = None,
        softcap: float = 0.0,
        sliding_window: int = 0,
        keys_rotated: bool = False,
        trained_context: int,
        max_rows: int,
        max_sequences: int,
        max_length: int,
        portable: bool = False,
        device: Optional[int] = None,
    ) -> None:
        q_type = dtype_name(dtype, "dtype")
        config = Config(
            plan=plan_text(plan),
            layer=layer,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=q_type,
            kv_dtype=q_type if kv_dtype is None else dtype_name(kv_dtype, "kv_dtype"),
            page_tokens=page_tokens,
            frequencies=rope_frequencies(head_dim, rope_theta, rope_dims, frequencies),
            rope_pairs=check_pairs(rope_pairs),
            rope_magnitude=rope_magnitude,
            scale=0.0 if scale is None else scale,
            softcap=softcap,
            sliding_window=sliding_window,
            keys_rotated=keys_rotated,
            trained_context=trained_context,
        )
        self._open(config, max_rows, max_sequences, max_length, portable, device)

    @classmethod
    def of_config(cls, config: Config, rows: int, sequences: int, length: int, device: int) -> PagedAttention:
        self = cls.__new__(cls)
        self._open(config, rows, sequences, length, False, device)
        return self

    def _open(
        self, config: Config, rows: int, sequences: int, length: int, portable: bool, device: Optional[int]
    ) -> None:
        self._handle = c_void_p()
        self._library = _library.library()
        self.config = config
        self.max_rows, self.max_sequences, self.max_length = rows, sequences, length
        self._workspace: Any = None
        limits = Limits(rows=rows, length=length, sequences=sequences, portable=int(portable))
        with on_device(device):
            shape, plan = config.shape(), config.plan.encode()
            call("bough_paged_create", plan, config.layer, byref(shape), byref(limits), byref(self._handle))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.bough_paged_destroy(self._handle)

    @property
    def plan(self) -> str:
        """The plan as JSON, after fitting."""
        return self._library.bough_paged_plan(self._handle).decode()

    @property
    def workspace_bytes(self) -> int:
        return int(self._library.bough_paged_workspace_bytes(self._handle))

    @property
    def stages(self) -> int:
        """What `due_stage` says where no stage is due."""
        return int(self._library.bough_paged_stages(self._handle))

    @property
    def mean_keys(self) -> int:
        """Keys of each mean that `summary` has to hold for this plan and layer; 0: none."""
        return int(self._library.bough_paged_mean_keys(self._handle))

    def state_bytes(self, slots: int) -> int:
        """Bytes of the states of `slots` sequences that are decoded; zero before their first call."""
        return int(self._library.bough_paged_state_bytes(self._handle, slots))

    def due_stage(self, counter: int, length: int) -> int:
        """The first stage to run at the counter-th decode step (from 0) since the last append, of a text of `length` tokens."""
        return int(self._library.bough_paged_due_stage(self._handle, counter, length))

    def new_workspace(self, like: Any, stream: Optional[int] = None) -> Any:
        """Zeroed memory [workspace_bytes] of uint8 on the device of the array `like`."""
        return self._zeros(self.workspace_bytes, like, stream)

    def new_states(self, slots: int, like: Any, stream: Optional[int] = None) -> Any:
        """Zeroed memory [state_bytes(slots)] of uint8 on the device of the array `like`."""
        return self._zeros(self.state_bytes(slots), like, stream)

    def write(
        self,
        k: Any,
        v: Any,
        k_cache: Any,
        v_cache: Any,
        *,
        lengths: Any,
        query_start: Any = None,
        page_table: Any = None,
        k_scale: Any = None,
        v_scale: Any = None,
        summary: Optional[KeySummary] = None,
        stream: Optional[int] = None,
    ) -> None:
        """Puts k and v [rows, kv_heads, head_dim] of q's type, the last rows of each sequence, into the cache. query_start None: one row
        a sequence, none where the length is 0. A cache of fp8 or int8 with a scale for each token and head gets both, each row divided by
        its greatest magnitude / 448 or / 127; one scale for the tensor is read, and what it cannot hold is clamped. Keys go to the
        summary too."""
        k_rows = self._rows(k, "k", heads=self.config.kv_heads)
        v_rows = self._rows(v, "v", like=k, heads=self.config.kv_heads)
        cache, keep = cache_of(self.config, k_cache, v_cache, page_table, k_scale, v_scale, summary, self.mean_keys)
        batch, kept = self._batch(k.shape[0], lengths, query_start, None)
        arrays = arrays_of(k, view(k, "k").index)
        on = arrays.stream() if stream is None else stream
        with arrays.guard():
            call("bough_paged_write", self._handle, byref(batch), byref(k_rows), byref(v_rows), byref(cache), on)
        del keep, kept

    def new_means(self, q: Any, k_cache: Any, page_table: Any = None) -> Optional[KeySummary]:
        """Room for the means of such a cache, of the type and on the device of the array `q`; None where the plan reads none."""
        n, at = self.mean_keys, view(k_cache, "k_cache")
        if n == 0:
            return None
        arrays = arrays_of(q, view(q, "q").index)
        with arrays.guard():
            return KeySummary(arrays.empty((at.shape[0], -(-at.shape[1] // n), *at.shape[2:]), q), n)

    def summarise(
        self,
        k_cache: Any,
        summary: KeySummary,
        *,
        lengths: Any,
        query_start: Any = None,
        rows: int = 0,
        page_table: Any = None,
        longest: Optional[int] = None,
        k_scale: Any = None,
        stream: Optional[int] = None,
    ) -> None:
        """Puts the means of keys that are in the cache into `summary`, those that end among the last query_start[s + 1] -
        query_start[s] tokens of text s (`rows` in all), or None: all of them. `write` does it for what it writes."""
        cache, keep = cache_of(self.config, k_cache, k_cache, page_table, k_scale, k_scale, summary, self.mean_keys)
        batch, kept = self._batch(rows, lengths, query_start, longest)
        arrays = arrays_of(k_cache, view(k_cache, "k_cache").index)
        on = arrays.stream() if stream is None else stream
        with arrays.guard():
            call("bough_paged_summarise", self._handle, byref(batch), byref(cache), on)
        del keep, kept

    def prune(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        *,
        lengths: Any,
        query_start: Any,
        page_table: Any = None,
        longest: Optional[int] = None,
        k_scale: Any = None,
        v_scale: Any = None,
        summary: Optional[KeySummary] = None,
        workspace: Any = None,
        stream: Optional[int] = None,
    ) -> None:
        """Chooses the context of every query block of 64 rows; `attend` on the same workspace reads it."""
        rows = self._rows(q, "q")
        cache, keep = cache_of(self.config, k_cache, v_cache, page_table, k_scale, v_scale, summary, self.mean_keys)
        batch, kept = self._batch(q.shape[0], lengths, query_start, longest)
        arrays, memory, on = self._place(q, workspace, stream)
        with arrays.guard():
            call("bough_paged_prune", self._handle, byref(batch), byref(rows), byref(cache), memory, on)
        del keep, kept

    def attend(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        *,
        lengths: Any,
        query_start: Any,
        page_table: Any = None,
        longest: Optional[int] = None,
        k_scale: Any = None,
        v_scale: Any = None,
        sink_logits: Any = None,
        out: Any = None,
        lse: Any = None,
        workspace: Any = None,
        stream: Optional[int] = None,
    ) -> Any:
        """Attention over what the last `prune` chose: o, as q. lse [rows, heads] float32, when given, gets the log of the sums."""
        rows = self._rows(q, "q")
        cache, keep = cache_of(self.config, k_cache, v_cache, page_table, k_scale, v_scale, None)
        batch, kept = self._batch(q.shape[0], lengths, query_start, longest)
        arrays, memory, on = self._place(q, workspace, stream)
        out = arrays.empty(q.shape, q) if out is None else out
        o = self._rows(out, "out", like=q)
        extra = self._extra(lse, sink_logits, q.shape[0])
        with arrays.guard():
            handle = self._handle
            call("bough_paged_attend", handle, byref(batch), byref(rows), byref(cache), byref(o), *extra, memory, on)
        del keep, kept
        return out

    def decode(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        *,
        lengths: Any,
        states: Any,
        slots: int,
        slot: Any,
        stage: Any,
        least_stage: int,
        page_table: Any = None,
        longest: Optional[int] = None,
        k_scale: Any = None,
        v_scale: Any = None,
        summary: Optional[KeySummary] = None,
        sink_logits: Any = None,
        out: Any = None,
        lse: Any = None,
        workspace: Any = None,
        stream: Optional[int] = None,
    ) -> Any:
        """One row a sequence, q [sequences, heads, head_dim], its state in a slot of `states` (new_states(slots)): o, as q.

        slot and stage [sequences] int32 on the device: the slot of each row and its due_stage; least_stage: the least of these. Each step
        of a sequence adds one token. A length of 0 leaves a row out.
        """
        rows = self._rows(q, "q")
        cache, keep = cache_of(self.config, k_cache, v_cache, page_table, k_scale, v_scale, summary, self.mean_keys)
        batch, kept = self._batch(q.shape[0], lengths, None, longest)
        arrays, memory, on = self._place(q, workspace, stream)
        out = arrays.empty(q.shape, q) if out is None else out
        o = self._rows(out, "out", like=q)
        where = view(states, "states")
        check_bytes(where, "states", self.state_bytes(slots))
        count = q.shape[0]
        slot_at, stage_at = ints(slot, "slot", count), ints(stage, "stage", count)
        given = States(where.pointer, slot_at.pointer, stage_at.pointer, slots, least_stage)
        extra = self._extra(lse, sink_logits, count)
        head = self._handle, byref(batch), byref(rows), byref(cache), byref(given), byref(o)
        with arrays.guard():
            call("bough_paged_decode", *head, *extra, memory, on)
        del keep, kept
        return out

    def selection(self, workspace: Any = None) -> Selected:
        """What the last `prune` on the workspace chose."""
        memory = self._workspace if workspace is None else workspace
        if memory is None:
            raise BoughError("there is no selection before the first prune")
        at = view(memory, "workspace")
        arrays, found = arrays_of(memory, at.index), Selection()
        self._library.bough_paged_selected(self._handle, at.pointer, byref(found))

        def part(pointer: Optional[int], shape: Sequence[int]) -> Any:
            first, count = (pointer or at.pointer) - at.pointer, shape[0]
            for n in shape[1:]:
                count *= n
            return arrays.as_ints(memory[first : first + 4 * count], shape)

        return Selected(
            part(found.blocks, (found.nb, 8)),
            part(found.counts, (found.nb, 4)),
            part(found.starts, (found.nb, found.list_heads, found.capacity)),
            found.chunk,
        )

    # ---- arguments ----

    def _zeros(self, count: int, like: Any, stream: Optional[int]) -> Any:
        at = view(like, "like")
        arrays = arrays_of(like, at.index)
        with arrays.guard():
            return arrays.zero_bytes(count, stream)

    def _place(self, q: Any, workspace: Any, stream: Optional[int]) -> tuple[Any, int, int]:
        arrays = arrays_of(q, view(q, "q").index)
        on = arrays.stream() if stream is None else stream
        if workspace is None:
            if self._workspace is None:
                if arrays.capturing():
                    raise BoughError("the first call is captured in a graph: give it a workspace, or call once before")
                self._workspace = self.new_workspace(q, on)
            workspace = self._workspace
        at = view(workspace, "workspace")
        check_bytes(at, "workspace", self.workspace_bytes)
        return arrays, at.pointer, on

    def _extra(self, lse: Any, sink_logits: Any, rows: int) -> tuple[Optional[int], Optional[int]]:
        return floats(lse, "lse", rows * self.config.heads), floats(sink_logits, "sink_logits", self.config.heads)

    def _rows(self, array: Any, name: str, like: Any = None, heads: Optional[int] = None) -> Rows:
        at, c = view(array, name), self.config
        check_type(at, name, c.dtype, "cuda")
        heads = c.heads if heads is None else heads
        if len(at.shape) != 3 or at.shape[1:] != (heads, c.head_dim):
            raise BoughError(f"{name} has shape {list(at.shape)}, it must be [rows, {heads}, {c.head_dim}]")
        if like is not None and at.shape[0] != like.shape[0]:
            first = "k" if name == "v" else "q"
            raise BoughError(f"{name} has {at.shape[0]} rows, it must have {first}'s {like.shape[0]}")
        check_last(at, name)
        step = steps(at)
        return Rows(at.pointer, step[0], step[1])

    def _batch(
        self, rows: int, lengths: Any, query_start: Any, longest: Optional[int]
    ) -> tuple[_library.Batch, tuple[View, ...]]:
        many = ints(lengths, "lengths", None)
        count = many.shape[0]
        start = ints(query_start, "query_start", count + 1) if query_start is not None else None
        most = self.max_length if longest is None else longest
        batch = _library.Batch(start.pointer if start else None, many.pointer, rows, most, count)
        return batch, (many, start) if start else (many,)
