"""Options that name LoRA adapters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.cli.options import Option
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.adapters.open import ScaledPath

__all__ = ["lora_keyword", "lora_options"]


def lora_options(action: str) -> tuple[Option, ...]:
    """``--lora`` and ``--lora-scaled``, whose help begins with `action`."""
    return (
        Option(
            "--lora",
            multiple=True,
            metavar="FILE[:SCALE]",
            heading="Adapters",
            aliases=("--lora-path", "--adapter-path"),
            help=f"{action}: a GGUF file or a folder of the peft library. Several: commas between, or given again.",
        ),
        Option(
            "--lora-scaled",
            multiple=True,
            metavar="FILE:SCALE",
            heading="Adapters",
            help="The same, where every adapter must have a scale.",
        ),
    )


def lora_keyword(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `lora_options` gave out of `values`; returns the keyword of `torchless.load`, if any.

    Raises:
        InvalidRequestError: a scale is missing or not finite.
    """
    from torchless.adapters.open import parse_scaled_path

    adapters: list[ScaledPath] = [parse_scaled_path(text) for text in _pieces(values.pop("lora"))]
    for text in _pieces(values.pop("lora_scaled")):
        adapter = parse_scaled_path(text)
        if adapter.path == Path(text):
            raise InvalidRequestError(f"--lora-scaled {text}: there is no scale; write {text}:SCALE")
        adapters.append(adapter)
    return {"lora": adapters} if adapters else {}


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """What stands between commas, but for a file that has one in its name."""
    for text in texts:
        yield from [text] if Path(text).exists() else filter(None, text.split(","))
