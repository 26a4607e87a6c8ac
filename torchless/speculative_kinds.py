"""Names of the ways to draft tokens, for whoever lists them without loading an engine."""

from __future__ import annotations

__all__ = ["SPECULATIVE"]

SPECULATIVE = ("auto", "off", "prompt-lookup", "draft", "both")
"""Who drafts: whatever helps; nobody; the text itself; the second model; both."""
