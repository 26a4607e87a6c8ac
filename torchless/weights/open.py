"""Opens a model by what its bytes say: a GGUF file, a safetensors file, or a folder of one model."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

from torchless.adapters.files import CONFIG_NAME, is_adapter
from torchless.errors import FormatError, ModelNotFoundError, TorchlessError, UnsupportedError
from torchless.hub import local_path
from torchless.weights.gguf import PART_NAME, GgufSource
from torchless.weights.safetensors import SafetensorsSource
from torchless.weights.source import WeightSource

__all__ = ["open_source"]

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_TO_SAFETENSORS = "convert it to safetensors (save_pretrained of the transformers library does) or get a GGUF"


def open_source(path: str | Path) -> WeightSource:
    """Opens a model file or folder; its data stays on disk until it is asked for.

    Args:
        path: a .gguf file (any part of a split one), a Hugging Face folder with config.json and
            .safetensors files, one of those files, or a folder with one GGUF model. A name of the hub or a URL
            (a str; see `torchless.hub`) is downloaded.

    Raises:
        ModelNotFoundError: nothing there, or not readable; suggests names that are there.
        FormatError: not a model, or a broken one; says what was found.
        UnsupportedError: a model that torchless cannot run, by name.
    """
    path = local_path(path).expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name.
        raise ModelNotFoundError(_not_found(path)) from None
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        if stat.S_ISDIR(mode):
            return _open_folder(path)
        if stat.S_ISREG(mode):
            return _open_file(path)
    except TorchlessError:
        raise
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be read: {error.strerror}") from None
    raise FormatError(f"{path}: not a regular file; expected a model file or folder")


def _open_file(path: Path) -> WeightSource:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise FormatError(f"{path}: the file is empty; get it again")
    if head[:4] == b"GGUF":
        source = GgufSource(path)
        if is_adapter(source.metadata):
            source.close()
            raise _not_a_model(path)
        return source
    if head[8:9] == b"{" or path.name.endswith((".safetensors", ".safetensors.index.json")):
        return SafetensorsSource(path)
    if b"data.pkl" in head or head[:2] == b"\x80\x02" or path.suffix in _PICKLE_SUFFIXES:
        raise FormatError(
            f"{path}: a PyTorch checkpoint, which can run code when it is opened: {_TO_SAFETENSORS}"
        )
    if head[:4] in (b"lmgg", b"fmgg", b"tjgg"):
        raise FormatError(f"{path}: a model in ggml's format from before GGUF; get a GGUF of it")
    if head.startswith(b"version https://git-lfs"):
        raise FormatError(f"{path}: a Git LFS pointer, not the model: run 'git lfs pull' in its folder")
    raise FormatError(
        f"{path}: not a model file: it starts with {head[:16]!r}; expected a GGUF file (b'GGUF') or a "
        f"Hugging Face folder with .safetensors files"
    )


def _open_folder(path: Path) -> WeightSource:
    names = sorted(item.name for item in path.iterdir())
    if CONFIG_NAME in names and "config.json" not in names:
        raise _not_a_model(path)
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return SafetensorsSource(path)
    files = [name for name in names if name.endswith(".gguf")]
    models = [name for name in files if _part_number(name) == 1]
    if len(models) == 1:
        return _open_file(path / models[0])
    if files:
        raise FormatError(f"{path}: the folder holds several GGUF files; give one: {', '.join(files[:8])}")
    pickles = [name for name in names if name.endswith(_PICKLE_SUFFIXES)]
    if pickles:
        raise FormatError(f"{path}: the folder holds a PyTorch checkpoint ({pickles[0]}): {_TO_SAFETENSORS}")
    found = ", ".join(names[:5]) or "nothing"
    raise FormatError(f"{path}: the folder holds no .safetensors or .gguf file; found {found}")


def _not_a_model(path: Path) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: a LoRA adapter, not a model: give the model, and this as --lora (lora=)"
    )


def _part_number(name: str) -> int:
    """Which part of a split model a file is; 1 for one that is not split."""
    match = PART_NAME.fullmatch(name)
    return 1 if match is None else int(match["number"])


def _not_found(path: Path) -> str:
    """What was looked for, and what is there that looks like it."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such file, nor a folder {folder}; check the path"
    names = [item.name for item in folder.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    models = sorted(name for name in names if name.endswith((".gguf", ".safetensors")))
    if near:
        return f"{path}: no such file; did you mean {' or '.join(near)}?"
    if models:
        return f"{path}: no such file; the models in that folder are {', '.join(models[:5])}"
    return f"{path}: no such file; give the path of a GGUF file or of a Hugging Face folder"
