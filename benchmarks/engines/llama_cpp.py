"""llama.cpp under the benchmark worker, by llama-cpp-python's low-level API. Imports no torchless."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

_GGML_TYPES = {"f16": 1, "bf16": 30}  # ggml's numbers; the Python module does not name all of them


class Engine:
    """One loaded model and one context: flash attention, memory-mapped file.

    Args:
        settings: ``model`` (path), ``threads``, ``context`` (tokens), ``batch`` (most tokens per step), ``kv``
            (number format of the cache: f16 or bf16) and ``repack``: True is llama.cpp's default (weights copied into
            the layouts of its fast kernels, AMX included), False its ``--repack 0`` (kernels read the file's own
            layout); ``sequences``: most that decode together.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._log: list[str] = []
        self._log_callback = llama_cpp.llama_log_callback(self._on_log)  # Must outlive the library's use.
        llama_cpp.llama_log_set(self._log_callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        started = time.perf_counter()
        self._model = llama_cpp.llama_model_load_from_file(
            settings["model"].encode(), _model_params(settings)
        )
        if not self._model:
            raise RuntimeError("llama.cpp could not load the model:\n" + "".join(self._log[-20:]))
        self._context = llama_cpp.llama_init_from_model(self._model, _context_params(settings))
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context:\n" + "".join(self._log[-20:]))
        self._load_s = time.perf_counter() - started
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch_tokens: int = settings["batch"]
        self._depth_ids: list[int] = []  # computed before the tokens of the last test
        self._batch = llama_cpp.llama_batch_init(max(self._batch_tokens, settings["sequences"]), 0, 1)

    def facts(self) -> dict[str, Any]:
        """Version, load time, system_info and where the weights went (the load log's lines on buffers)."""
        return {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "load_s": self._load_s,
            "vocab_size": self._vocab_size,
            "system_info": llama_cpp.llama_print_system_info().decode().strip(),
            "buffers": [" ".join(line.split()) for line in self._log if "buffer size" in line],
        }

    def measure(self, depth_ids: list[int], token_ids: list[int], batch: int, sequences: int = 1) -> float:
        """Seconds to compute `token_ids`, `batch` tokens a step, after `depth_ids`, which are not timed.

        Logits are computed once a step, for its last token: what generating text needs. A context stays for the next
        test that has the same. With several sequences each step has one token, and its logits, of each.
        """
        if sequences > 1:
            return self._measure_together(token_ids, sequences)
        memory = llama_cpp.llama_get_memory(self._context)
        same = depth_ids == self._depth_ids and llama_cpp.llama_memory_seq_rm(memory, 0, len(depth_ids), -1)
        if not same:
            llama_cpp.llama_memory_clear(memory, True)
            self._feed(depth_ids, 0, self._batch_tokens)
            self._depth_ids = depth_ids
        started = time.perf_counter()
        self._feed(token_ids, len(depth_ids), batch)
        return time.perf_counter() - started

    def _measure_together(self, token_ids: list[int], sequences: int) -> float:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._depth_ids = []
        batch = self._batch
        started = time.perf_counter()
        for start in range(0, len(token_ids), sequences):
            batch.n_tokens = sequences
            for i in range(sequences):
                batch.token[i] = token_ids[start + i]
                batch.pos[i] = start // sequences
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = i
                batch.logits[i] = True
            status = llama_cpp.llama_decode(self._context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode returned {status}")
            self._last_logits()
        return time.perf_counter() - started

    def kv_bytes(self) -> int:
        """Bytes of the key/value cache: llama.cpp allocates the whole context."""
        lines = [line for line in self._log if "KV buffer size" in line]
        return sum(round(float(line.rpartition("=")[2].split()[0]) * (1 << 20)) for line in lines)

    def logits(self, token_ids: list[int]) -> list[float]:
        """Logits after the last of `token_ids`."""
        self.measure([], token_ids, self._batch_tokens)
        return [float(x) for x in self._last_logits()]

    def _feed(self, token_ids: list[int], position: int, batch_tokens: int) -> None:
        batch = self._batch
        for start in range(0, len(token_ids), batch_tokens):
            chunk = token_ids[start : start + batch_tokens]
            batch.n_tokens = len(chunk)
            for i, token in enumerate(chunk):
                batch.token[i] = token
                batch.pos[i] = position + start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = i == len(chunk) - 1
            status = llama_cpp.llama_decode(self._context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode returned {status}")
            self._last_logits()  # Waits for the step, as sampling would.

    def _last_logits(self) -> npt.NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self._vocab_size,))

    def _on_log(self, _level: int, text: bytes, _data: Any) -> None:
        self._log.append(text.decode(errors="replace"))


def _model_params(settings: dict[str, Any]) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = settings["repack"]
    if hasattr(params, "load_mode"):  # Newer versions have a mode, older ones a flag.
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    else:
        params.use_mmap = True
    return params


def _context_params(settings: dict[str, Any]) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = settings["context"]
    params.n_batch = params.n_ubatch = settings["batch"]
    params.n_seq_max = settings["sequences"]
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = settings["threads"]
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.type_k = params.type_v = _GGML_TYPES[settings["kv"]]
    params.no_perf = True
    return params
