"""What there is to know about a LoRA adapter, as lines or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torchless.cli.terminal import columns, listing, number

if TYPE_CHECKING:
    from torchless.adapters.adapter import Adapter

__all__ = ["describe_adapter"]


def describe_adapter(adapter: Adapter, part: str | None) -> Iterable[str]:
    """Lines of ``torchless show``; `part` is "json", "tensors", or None for a summary."""
    from torchless.adapters.binding import describe

    if part == "json":
        yield json.dumps({"kind": "adapter", **describe(adapter), "base": adapter.base}, indent=1)
    elif part == "tensors":
        rows: list[tuple[str, ...]] = [("weight", "rank", "out", "in", "scale")]
        for name, low_rank in adapter.parts.items():
            sizes = (low_rank.rank, low_rank.b.shape[0], low_rank.a.shape[1])
            rows.append((name, *map(str, sizes), f"{low_rank.scale:.4g}"))
        yield from columns(rows, right=[1, 2, 3, 4])
    else:
        kinds = sorted({name.split(".")[-2] for name in adapter.parts})
        yield from listing(
            "LoRA adapter",
            [
                ("file", str(adapter.path)),
                ("format", "GGUF" if adapter.format == "gguf" else "folder of the peft library"),
                ("name", adapter.name),
                ("architecture", adapter.architecture),
                ("made for", adapter.base),
                ("rank", ", ".join(map(str, adapter.ranks))),
                ("alpha", f"{adapter.alpha:g}"),
                ("weights", f"{len(adapter.parts)}: {', '.join(kinds)}"),
                ("parameters", number(adapter.num_parameters)),
            ],
        )
