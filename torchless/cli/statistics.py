"""The block that ``--stats`` prints: speed, bandwidth, latency, memory, and what repeats the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchless.cli.terminal import counted, listing
from torchless.errors import InvalidRequestError
from torchless.memory import available_memory, format_bytes

if TYPE_CHECKING:
    from torchless.llm import LLM
    from torchless.results import Completion, Usage

__all__ = ["peak_memory_bytes", "statistics_block", "write_metrics"]

_LEAST_MEASURED_BYTES = 4 << 20
_MOST_MEASURED_BYTES = 512 << 20  # past every cache, and read in a fraction of a second


def statistics_block(llm: LLM, completion: Completion) -> list[str]:
    """Lines about one finished request."""
    usage, timings, info = completion.usage, completion.timings, llm.info
    peak = peak_memory_bytes()  # before the measurement below takes memory
    cached = f", {usage.num_cached_tokens} more were cached" if usage.num_cached_tokens else ""
    num_computed = usage.num_prompt_tokens - usage.num_cached_tokens
    prompt = f"{num_computed} tokens in {_seconds(timings.prefill_ms)}{cached}"
    answer = f"{usage.num_completion_tokens} tokens in {_seconds(timings.decode_ms)}"
    items = [
        ("prefill", f"{timings.prefill_tokens_per_second:.1f} tok/s ({prompt})"),
        ("decode", f"{timings.decode_tokens_per_second:.1f} tok/s ({answer})"),
        ("bandwidth", _bandwidth(llm, timings.decode_tokens_per_second)),
        *_drafting(usage),
        ("first token", f"{timings.time_to_first_token_ms:.1f} ms after the prompt was given"),
        ("peak memory", "unknown on this system" if peak is None else format_bytes(peak)),
        ("ended by", completion.finish_reason),
        ("seed", "" if completion.params.seed is None else str(completion.params.seed)),
        ("logits hash", completion.logits_hash),
        (
            "backend",
            f"{info['backend']}, {counted(info['num_threads'], 'thread')}, {info['kv_type']} cache, "
            f"{info['activations']} activations{', fast prompts' if info['fast'] else ''}",
        ),
    ]
    return listing("Statistics", items, sys.stderr)


def _drafting(usage: Usage) -> list[tuple[str, str]]:
    if not usage.num_drafted_tokens:
        return []
    share = usage.num_kept_tokens / usage.num_drafted_tokens
    tokens = counted(usage.num_drafted_tokens, "token")
    return [("drafted", f"{tokens}, of which {usage.num_kept_tokens} ({share:.0%}) were right")]


def peak_memory_bytes() -> int | None:
    """The most physical memory that this process has had, mapped files included."""
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _bandwidth(llm: LLM, tokens_per_second: float) -> str:
    """Bytes of weights read per second of decoding, as a share of what this machine can read."""
    info = llm.info
    num_bytes = int(info["memory_bytes"].get("weights", 0))
    if not num_bytes or not tokens_per_second:
        return "not measured: fewer than two tokens were generated"
    text = f"{num_bytes * tokens_per_second / 1e9:.2f} GB/s of weights ({format_bytes(num_bytes)} a token)"
    if info["backend"] != "cpu":
        return f"{text}; no share of the machine's: the {info['backend']} backend is not built for speed"
    measured = min(max(num_bytes, _LEAST_MEASURED_BYTES), _MOST_MEASURED_BYTES)
    available = available_memory()
    if available is not None and available.num_bytes < 2 * measured:
        return f"{text}; too little memory is left to measure the machine's"
    from torchless import _core

    roof = _core.measure_read_bandwidth(num_threads=info["num_threads"], num_bytes=measured)
    share = num_bytes * tokens_per_second / roof
    return (
        f"{text}, {share:.1%} of the {roof / 1e9:.1f} GB/s that {counted(info['num_threads'], 'thread')} "
        f"read here from {format_bytes(measured)}"
    )


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def write_metrics(llm: LLM, target: str) -> None:
    """Writes a model's metrics in Prometheus' text form to a file, or to stderr for ``-``."""
    text = llm.metrics().prometheus(model=Path(llm.info["path"]).name)
    if target == "-":
        click.echo(text, nl=False, err=True)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{target} cannot be written: {error.strerror or error}") from None
