"""Any ``llama-bench`` binary under the benchmark worker: one process a measurement, its own figures are taken."""

from __future__ import annotations

import json
import subprocess
from typing import Any


class Engine:
    """A binary and the settings of all its runs. It loads the model anew for every measurement, untimed.

    Args:
        settings: ``command`` (the binary and further arguments), ``model`` (path), ``threads``, ``batch`` (most tokens
            per step), ``kv`` (number format of the cache).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._command = [
            *settings["command"],
            *("-m", settings["model"], "-t", str(settings["threads"]), "-ngl", "0", "-fa", "1"),
            *("-b", str(settings["batch"]), "-ub", str(settings["batch"]), "-ctk", settings["kv"]),
            *("-ctv", settings["kv"], "-r", "1", "-o", "json"),
        ]
        self._row = self._run(0, 1, 0)  # shows at once whether it works

    def facts(self) -> dict[str, Any]:
        """Version of the binary. Token ids are its own, so any vocabulary will do."""
        commit = self._row.get("build_commit", "of an unknown commit")
        return {"version": f"llama-bench {commit}", "load_s": None, "vocab_size": 1}

    def measure(self, depth_ids: list[int], token_ids: list[int], batch: int, sequences: int = 1) -> float:
        """Seconds for as many tokens as `token_ids` has: a prompt, or one by one where `batch` is 1."""
        if sequences > 1:
            raise RuntimeError("llama-bench decodes one sequence; leave out -s")
        count = len(token_ids)
        prompt, new = (0, count) if batch == 1 else (count, 0)
        return count / float(self._run(prompt, new, len(depth_ids))["avg_ts"])

    def _run(self, prompt: int, new: int, depth: int) -> dict[str, Any]:
        """The row that the binary prints for one test."""
        command = [*self._command, "-p", str(prompt), "-n", str(new)]
        command += ["-d", str(depth)] if depth else []  # older binaries have no such flag
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"{command[0]} ended with status {done.returncode}: {done.stderr.strip()[-400:]}"
            )
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        for row in rows:
            if (row["n_prompt"], row["n_gen"]) == (prompt, new):
                return row
        raise RuntimeError(f"{command[0]} printed no row with n_prompt {prompt} and n_gen {new}")
