"""What is known of an answer, as lines for people."""

from __future__ import annotations

from torchless.chat.partners import Report

__all__ = ["report_lines", "speed"]


def speed(report: Report) -> str:
    """``12.3 tok/s``, or nothing where that was not measured."""
    return f"{report.tokens_per_second:.1f} tok/s" if report.tokens_per_second else ""


def report_lines(report: Report) -> list[str]:
    """Everything, a line each."""
    rows = [
        ("prompt", _tokens(report.num_prompt_tokens)),
        ("of that cached", _tokens(report.num_cached_tokens or None)),
        ("answer", _tokens(report.num_completion_tokens)),
        ("speed", speed(report)),
        ("first token", f"{report.first_token_ms:.1f} ms after the question"),
        ("ended by", report.finish_reason),
        ("seed", "" if report.seed is None else str(report.seed)),
    ]
    return [f"{name:<15}{value}" for name, value in rows if value]


def _tokens(number: int | None) -> str:
    return "" if number is None else f"{number} tokens"
