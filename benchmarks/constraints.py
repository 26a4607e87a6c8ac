"""What a constraint adds to the time of a token, with a vocabulary of 128k: step by step, with and without one.

The same request runs in turns without a constraint and with a JSON schema, without speculation. A recorder around the
constraint sums the time that the engine waits for masks and spends on telling the matcher of tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torchless
from torchless.constraints.matcher import Matcher

SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "maxItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 40},
            "kind": {"enum": ["cat", "dog", "mouse", "elephant"]},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
            "size": {"type": "number", "minimum": 0, "maximum": 1000},
            "inner": {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}, "note": {"type": "string", "maxLength": 80}},
                "required": ["ok", "note"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "kind", "code", "size", "inner"],
        "additionalProperties": False,
    },
}


class Waits:
    """Seconds that the engine's thread spent within the constraint, by method."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in ("mask", "accept", "prepare")}

    def watch(self) -> None:
        for name, times in self.seconds.items():
            setattr(Matcher, name, self._timed(getattr(Matcher, name), times))

    @staticmethod
    def _timed(method: Any, times: list[float]) -> Any:
        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                times.append(time.perf_counter() - begin)

        return timed


def main() -> None:
    """Prints milliseconds a token, and the waits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constraints", description=__doc__)
    parser.add_argument("model", help="a GGUF file or a Hugging Face folder")
    parser.add_argument("tokens", nargs="?", type=int, default=96, help="of each answer; the default is 96")
    arguments = parser.parse_args()
    waits = Waits()
    waits.watch()
    results: dict[str, list[float]] = {}
    with torchless.load(arguments.model, speculative="off") as model:
        for temperature in (0.0, 0.8):
            for round_number in range(5):
                for name, keywords in (("plain", {}), ("schema", {"schema": SCHEMA})):
                    completion = model.generate(
                        "A list:",
                        max_tokens=arguments.tokens,
                        temperature=temperature,
                        seed=round_number,
                        ignore_eos=True,
                        **keywords,
                    )
                    ms = completion.timings.decode_ms / (completion.usage.num_completion_tokens - 1)
                    results.setdefault(f"{name}, temperature {temperature}", []).append(ms)
    for name, values in results.items():
        print(
            f"{name}: median {statistics.median(values):.2f} ms a token, {min(values):.2f} to {max(values):.2f}"
        )
    for name, seconds in waits.seconds.items():
        values = sorted(1e6 * value for value in seconds)
        mean, median, most = (
            statistics.mean(values),
            statistics.median(values),
            values[len(values) * 99 // 100],
        )
        print(f"{name}: mean {mean:.0f} us, median {median:.0f} us, 99 % below {most:.0f} us")


if __name__ == "__main__":
    main()
