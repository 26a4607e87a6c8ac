"""Texts of the tokens that mark a gap, by the families that use them, and of those that separate files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["GAP_MARKS", "SEPARATOR_TEXTS", "GapMarks", "InfillOrder"]

InfillOrder = Literal["psm", "spm", "spm2"]
"""In which order a model reads the two texts, with the marks PRE, SUF and MID: ``PRE prefix SUF suffix MID`` is "psm",
``SUF suffix PRE prefix MID`` is "spm", and ``PRE SUF suffix MID prefix``, which joins prefix and answer, is "spm2"."""


@dataclass(frozen=True, slots=True)
class GapMarks:
    """One family's marks.

    Attributes:
        prefix, suffix: texts of the tokens before the text in front of the gap and before that behind it.
        middle: text of the token before the gap's own text; None where there is none.
        order: the order that the family was trained on, or on most.
    """

    prefix: str
    suffix: str
    middle: str | None
    order: InfillOrder = "psm"


GAP_MARKS = (
    GapMarks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma, Granite 3.3
    GapMarks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code, StableCode, Refact
    GapMarks("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    GapMarks(
        "<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"
    ),  # DeepSeek
    GapMarks("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),  # Code Llama
    GapMarks("<PRE>", "<SUF>", "<MID>"),
    GapMarks("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM 4.5
    GapMarks("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", "spm"),  # Seed-Coder
    # Codestral has a [MIDDLE], too, but is asked without it (mistral-common).
    GapMarks("[PREFIX]", "[SUFFIX]", None, "spm"),
)

SEPARATOR_TEXTS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<repo_name>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>", "<|file_separator|>", "<file_sep>"),
    "eot": ("\u2581<EOT>", "<EOT>", "_<EOT>"),
}
"""By role: the token that fills up a gap, those before another repository and file, and Code Llama's end of a gap."""
