"""What others make of stored blocks: NumPy, the gguf package, or llama.cpp's own library."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from torchless.quants import Bytes, stored_type

# Numbers that NumPy has itself, which the gguf package does not decode.
NUMBERS = {"F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
ONLY_IN_LLAMA_CPP = ("Q1_0", "Q2_0")


def decoded_by_another(type_name: str, raw: Bytes) -> np.ndarray:
    """Weights (..., row) of stored rows (..., row bytes). Skips the test where who knows the type is not installed."""
    if type_name in NUMBERS:
        with np.errstate(all="ignore"):
            return raw.view(NUMBERS[type_name]).astype(np.float32)
    if type_name in ONLY_IN_LLAMA_CPP:
        return _decoded_by_llama_cpp(type_name, raw)
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[type_name])


def _decoded_by_llama_cpp(type_name: str, raw: Bytes) -> np.ndarray:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = Path(sys.modules["llama_cpp"].__file__ or "").parent / "lib"
    library = next(folder.glob("*ggml-base.*"), None)
    decode = library and getattr(ctypes.CDLL(str(library)), f"dequantize_row_{type_name.lower()}", None)
    if decode is None:
        pytest.skip(f"this llama.cpp has no decoder of {type_name}")
    known = stored_type(type_name)
    assert known is not None
    blocks = np.ascontiguousarray(raw)
    values = np.empty(raw.size // known.block_bytes * known.block_elements, np.float32)
    decode(
        ctypes.c_void_p(blocks.ctypes.data), ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size)
    )
    return values.reshape(*raw.shape[:-1], -1)
