"""Fields of Ollama's API: options, times, and how long a model stays loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from torchless.results import Completion
from torchless.server.errors import ApiError
from torchless.server.sampling_fields import sampling_keywords

__all__ = ["keep_alive_seconds", "now", "options_keywords", "times"]

# Options of loading a model, which is loaded already: accepted where they ask for what is there anyway.
_LOAD_OPTIONS = frozenset(
    {
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "use_mlock",
        "numa",
        "low_vram",
        "num_keep",
    }
)
_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_SECONDS = 3.0e9  # of a timer, and of what a date can hold
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|\u00b5s|ms|s|m|h)")


def options_keywords(options: Mapping[str, Any] | None, context_length: int) -> dict[str, Any]:
    """Keywords for a request.

    Raises:
        ApiError: an option is unknown, or asks for more context than the model was loaded with.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in _LOAD_OPTIONS & given.keys():
        del given[name]
    wanted = given.pop("num_ctx", None)
    if wanted is not None and (type(wanted) is not int or wanted > context_length):
        raise ApiError(
            400,
            f"options.num_ctx: got {wanted!r:.40}, but the model was loaded with {context_length} (--ctx)",
        )
    if given.pop("penalize_newline", False):
        raise ApiError(400, "options.penalize_newline: not supported; leave it out")
    for name in ("tfs_z",):
        if given.pop(name, 1) != 1:
            raise ApiError(400, f"options.{name}: this sampler is not supported; leave it out")
    return sampling_keywords(given)


def keep_alive_seconds(value: Any) -> float | None:
    """How long a model stays loaded after a request: seconds, or a text such as ``5m``. None, or less than 0: for ever.

    Raises:
        ApiError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ApiError(400, f"keep_alive: expected seconds or a text such as '5m', got {value!r:.40}")
    seconds = _seconds(value) if isinstance(value, str) else float(value)
    return None if seconds < 0 else min(seconds, _LONGEST_SECONDS)


def _seconds(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text.lstrip("+-").strip()
    if re.fullmatch(r"\d+(\.\d*)?", rest):
        return sign * float(rest)
    if not rest or _DURATION.sub("", rest):
        raise ApiError(400, f"keep_alive: expected seconds or a text such as '5m', got {text!r:.40}")
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(rest))


def now() -> str:
    """The time in the form of RFC 3339."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def times(completion: Completion, total_seconds: float, load_seconds: float) -> dict[str, Any]:
    """Counts and durations, which are nanoseconds there."""
    timings, usage = completion.timings, completion.usage
    reason = "length" if completion.finish_reason == "length" else "stop"
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": int(total_seconds * 1e9),
        "load_duration": int(load_seconds * 1e9),
        "prompt_eval_count": usage.num_prompt_tokens,
        "prompt_eval_duration": int(timings.prefill_ms * 1e6),
        "eval_count": usage.num_completion_tokens,
        "eval_duration": int(timings.decode_ms * 1e6),
    }
