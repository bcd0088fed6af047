"""Bough's attention for PyTorch, CuPy and NumPy: pruning and attention of long texts on CUDA devices and CPUs.

attention() is one call on q, k and v; PagedAttention works on a paged KV cache of your own, for engines.
"""

from ._cuda import clear_cache
from ._library import BoughError, break_even_tokens
from ._paged_cache import KeySummary
from .attention import attention
from .paged import PagedAttention, Selected

__all__ = ["BoughError", "KeySummary", "PagedAttention", "Selected", "attention", "break_even_tokens", "clear_cache"]
__version__ = "0.1.0"
