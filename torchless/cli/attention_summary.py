"""What the attention of a model's layers looks back at and keeps, in a few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torchless.kv_types import bytes_per_token
from torchless.memory import format_bytes
from torchless.plan import Attention

__all__ = ["cache", "reach"]


def reach(attentions: Sequence[Attention]) -> str:
    """What the layers look back at."""
    counts = Counter(op.window for op in attentions)
    names = {window: f"the last {window} tokens" for window in counts}
    names[None] = "everything before"
    if len(counts) == 1:
        return names[next(iter(counts))]
    return ", ".join(f"{names[window]} in {count} layers" for window, count in counts.items())


def cache(attentions: Sequence[Attention]) -> str:
    """Sizes of the cache by its type; layers that read another one's cache have none."""
    stored = [op for op in attentions if op.k is not None]

    def size(kv_type: str) -> str:
        num_bytes = sum(bytes_per_token(kv_type, 1, op.num_kv_heads, op.head_dim) for op in stored)
        return f"{format_bytes(num_bytes)} in {kv_type}"

    return f"{', '.join(map(size, ('f16', 'q8_0', 'q4_0')))} for each token"
