"""torchless under the benchmark worker: executor steps alone, and `generate` end to end."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import torchless
from torchless.backends.base import PAGE_TOKENS, Batch
from torchless.llm import LLM
from torchless.loading import load_model, load_settings


class Engine:
    """One loaded model.

    Args:
        settings: ``model`` (path), ``threads``, ``context`` (tokens), ``batch`` (most tokens per step),
            ``kv`` (number format of the cache).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        started = time.perf_counter()
        arguments = {
            "ctx": settings["context"],
            "threads": settings["threads"],
            "batch_tokens": settings["batch"],
            "kv": settings["kv"],
        }
        defaults = {"backend": "cpu", "prefix_cache": False}
        loaded = load_model(load_settings(settings["model"], {**arguments, **defaults}, {}, None))
        self._llm = LLM(loaded)
        self._load_s = time.perf_counter() - started
        self._executor = loaded.executor
        self._most_pages = 0
        self._depth_ids: list[int] = []  # computed before the tokens of the last test

    def facts(self) -> dict[str, Any]:
        """Version, load time and memory by purpose."""
        return {
            "version": torchless.__version__,
            "load_s": self._load_s,
            "vocab_size": self._executor.vocab_size,
            "max_batch_tokens": self._executor.options.max_batch_tokens,
            "memory_bytes": self._executor.memory_bytes(),
            "page_tokens": PAGE_TOKENS,
        }

    def measure(self, depth_ids: list[int], token_ids: list[int], batch: int, sequences: int = 1) -> float:
        """Seconds to compute `token_ids`, `batch` tokens a step, after `depth_ids`, which are not timed.

        Logits are computed once a step, for its last token. Calls the executor directly. A context stays for the next
        test that has the same. With several sequences each step has one token, and its logits, of each.
        """
        if sequences > 1:
            return self._measure_together(np.array(token_ids, np.int32).reshape(-1, sequences))
        # No request is under way, so every page is free to use.
        num_pages = -(-(len(depth_ids) + len(token_ids)) // PAGE_TOKENS)
        self._most_pages = max(self._most_pages, num_pages)
        page_ids = np.arange(num_pages, dtype=np.int32)
        if depth_ids != self._depth_ids:
            self._feed(depth_ids, 0, self._executor.options.max_batch_tokens, page_ids)
            self._depth_ids = depth_ids
        started = time.perf_counter()
        self._feed(token_ids, len(depth_ids), batch, page_ids)
        seconds = time.perf_counter() - started
        self._executor.release_pages(page_ids[len(depth_ids) // PAGE_TOKENS + 1 :])
        return seconds

    def _measure_together(self, steps: np.ndarray) -> float:
        """`steps` is (tokens of a sequence, sequences)."""
        self._depth_ids = []
        num_steps, sequences = steps.shape
        each = -(-num_steps // PAGE_TOKENS)
        tables = np.arange(each * sequences, dtype=np.int32).reshape(sequences, each)
        self._most_pages = max(self._most_pages, tables.size)
        one_each = np.arange(sequences + 1, dtype=np.int32)
        started = time.perf_counter()
        for position, tokens in enumerate(steps):
            used = position // PAGE_TOKENS + 1
            self._executor.step(
                Batch(
                    token_ids=np.ascontiguousarray(tokens),
                    positions=np.full(sequences, position, np.int32),
                    run_starts=one_each,
                    page_ids=np.ascontiguousarray(tables[:, :used]).reshape(-1),
                    page_starts=one_each * used,
                    output_rows=one_each[:-1],
                )
            )
        seconds = time.perf_counter() - started
        self._executor.release_pages(tables.reshape(-1))
        return seconds

    def generate(self, token_ids: list[int], max_tokens: int) -> dict[str, Any]:
        """Greedy text through the whole engine: token counts, tokens per second, hash of the logits."""
        self._depth_ids = []  # its pages are used by others
        answer = self._llm.generate(
            token_ids, max_tokens=max_tokens, temperature=0, ignore_eos=True, logits_hash=True
        )
        return {
            "prompt_tokens": answer.usage.num_prompt_tokens,
            "completion_tokens": answer.usage.num_completion_tokens,
            "prefill_tokens_per_second": answer.timings.prefill_tokens_per_second,
            "decode_tokens_per_second": answer.timings.decode_tokens_per_second,
            "time_to_first_token_ms": answer.timings.time_to_first_token_ms,
            "logits_hash": answer.logits_hash,
        }

    def kv_bytes(self) -> int:
        """Bytes of the key/value pages that `measure` had in use at most."""
        return self._most_pages * int(self._executor.memory_bytes()["kv_page"])

    def logits(self, token_ids: list[int]) -> list[float]:
        """Logits after the last of `token_ids`."""
        self._depth_ids = []
        return [float(x) for x in self._llm.logits(token_ids)[-1]]

    def _feed(self, token_ids: list[int], position: int, batch: int, page_ids: np.ndarray) -> None:
        batch = min(batch, self._executor.options.max_batch_tokens)
        for start in range(0, len(token_ids), batch):
            chunk = np.array(token_ids[start : start + batch], np.int32)
            first = position + start
            used = page_ids[: -(-(first + len(chunk)) // PAGE_TOKENS)]
            self._executor.step(
                Batch(
                    token_ids=chunk,
                    positions=np.arange(first, first + len(chunk), dtype=np.int32),
                    run_starts=np.array([0, len(chunk)], np.int32),
                    page_ids=used,
                    page_starts=np.array([0, len(used)], np.int32),
                    output_rows=np.array([len(chunk) - 1], np.int32),
                )
            )
