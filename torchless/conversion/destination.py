"""Where a conversion writes to: checked first, complete or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchless.errors import InvalidRequestError
from torchless.weights.gguf import PART_NAME
from torchless.weights.safetensors import SafetensorsSource
from torchless.weights.source import WeightSource

__all__ = ["check_destination", "copy_tokenizer", "new_folder"]

_TOKENIZER_FILES: Sequence[str] = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


def check_destination(source: WeightSource, dst: Path, *, to_gguf: bool) -> None:
    """Raises InvalidRequestError where writing would destroy something."""
    if dst.exists() and dst.resolve() in (source.path.resolve(), source.path.parent.resolve()):
        raise InvalidRequestError(f"{dst}: source and destination are the same; write to another place")
    if to_gguf and dst.is_dir():
        raise InvalidRequestError(f"{dst}: a folder; the destination of a GGUF file is a file name")
    if not to_gguf and dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise InvalidRequestError(f"{dst}: exists and is not an empty folder; give a new one")
    match = PART_NAME.fullmatch(dst.name)
    if to_gguf and match is not None:
        raise InvalidRequestError(
            f"{dst}: the name is that of a part of a split model; give {match['stem']}.gguf, numbers are added"
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that gets its name when it is complete; nothing is left of one that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir():
            path.rmdir()  # empty, as was checked
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_tokenizer(source: SafetensorsSource, dst: Path) -> None:
    """Copies the files that make a folder's tokenizer."""
    folder = source.path if source.path.is_dir() else source.path.parent
    files = [folder / name for name in _TOKENIZER_FILES]
    files += sorted((folder / "additional_chat_templates").glob("*.jinja"))
    for path in files:
        if path.is_file():
            target = dst / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
