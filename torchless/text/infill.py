"""Filling a gap in a text: the tokens that mark it, and the order in which a model was trained to read it.

The orders are those of M. Bavarian et al., "Efficient Training of Language Models to Fill in the Middle" (2022), where
"spm2" is the second variant of SPM; which tokens a family uses, and how, is what its authors published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from torchless.errors import InvalidRequestError, UnsupportedError
from torchless.text.gap_tokens import GAP_MARKS, SEPARATOR_TEXTS, GapMarks, InfillOrder

__all__ = ["InfillFormat", "InfillOrder", "find_infill_format", "no_infill"]


@dataclass(frozen=True, slots=True)
class InfillFormat:
    """How a model is asked to fill a gap.

    Attributes:
        prefix_id, suffix_id: mark what stands before and behind the gap.
        middle_id: marks the gap; None where the model begins to fill it after the text in front.
        order: the one that the model was trained on, or on most.
        end_ids: a gap ends there, beside the ends that the tokenizer knows: another mark, or another file.
        other_ids: further tokens by role: ``fim_pad``, ``fim_rep``, ``fim_sep``, ``eot``.
    """

    prefix_id: int
    suffix_id: int
    middle_id: int | None
    order: InfillOrder
    end_ids: frozenset[int]
    other_ids: Mapping[str, int]

    @property
    def ids(self) -> dict[str, int]:
        """All tokens by their roles in GGUF files."""
        middle = {} if self.middle_id is None else {"fim_mid": self.middle_id}
        return {"fim_pre": self.prefix_id, "fim_suf": self.suffix_id, **middle, **self.other_ids}

    def arrange(self, prefix: Sequence[int], suffix: Sequence[int], order: str | None = None) -> list[int]:
        """Token ids of the text around a gap, up to where the gap is to be filled.

        Args:
            prefix, suffix: token ids.
            order: one of `InfillOrder`; None is the model's own.

        Raises:
            InvalidRequestError: an unknown order, or one that needs a token that the model does not use.
        """
        wanted = self.order if order is None else order
        if wanted not in get_args(InfillOrder):
            raise InvalidRequestError(
                f"order must be one of {', '.join(get_args(InfillOrder))}, got {wanted!r}"
            )
        if self.middle_id is None:
            if wanted != "spm":
                raise InvalidRequestError(f"order must be 'spm': this model marks no middle, got {wanted!r}")
            return [self.suffix_id, *suffix, self.prefix_id, *prefix]
        if wanted == "psm":
            return [self.prefix_id, *prefix, self.suffix_id, *suffix, self.middle_id]
        if wanted == "spm":
            return [self.suffix_id, *suffix, self.prefix_id, *prefix, self.middle_id]
        return [self.prefix_id, self.suffix_id, *suffix, self.middle_id, *prefix]


def find_infill_format(special_ids: Mapping[str, int], added: Mapping[int, str]) -> InfillFormat | None:
    """What a tokenizer says about gaps, None where the model was not trained to fill them.

    Args:
        special_ids: ids that the file names by role.
        added: texts of the tokens that stand for themselves, by id.
    """
    id_of = {text: index for index, text in added.items()}
    # Conversions of Gemma name places that only CodeGemma fills.
    named = {role: index for role, index in special_ids.items() if "<unused" not in added.get(index, "")}
    marks = _marks(named, added, id_of)
    if marks is None:
        return None
    prefix, suffix, middle, order = marks
    other = {
        role: index
        for role, texts in SEPARATOR_TEXTS.items()
        if (index := named.get(role, next((id_of[text] for text in texts if text in id_of), None)))
        is not None
    }
    ends = {index for index in (prefix, suffix, middle) if index is not None}.union(other.values())
    return InfillFormat(prefix, suffix, middle, order, frozenset(ends), other)


def _marks(
    named: Mapping[str, int], added: Mapping[int, str], id_of: Mapping[str, int]
) -> tuple[int, int, int | None, InfillOrder] | None:
    if "fim_pre" in named and "fim_suf" in named:
        prefix, suffix = named["fim_pre"], named["fim_suf"]
        known = next((row for row in GAP_MARKS if row.prefix == added.get(prefix)), GapMarks("", "", ""))
        middle = None if known.middle is None else named.get("fim_mid")
        if middle is not None or known.middle is None:
            return prefix, suffix, middle, known.order
    for row in GAP_MARKS:
        if row.prefix in id_of and row.suffix in id_of and (row.middle is None or row.middle in id_of):
            middle = None if row.middle is None else id_of[row.middle]
            return id_of[row.prefix], id_of[row.suffix], middle, row.order
    return None


def no_infill() -> UnsupportedError:
    """The error of a model that was not trained to fill gaps."""
    examples = ", ".join(row.prefix for row in GAP_MARKS)
    return UnsupportedError(
        f"the model was not trained to fill gaps: its tokenizer names no tokens around one "
        f"(tokenizer.ggml.fim_pre_token_id, fim_suf_token_id, fim_mid_token_id) and has none that is known "
        f"({examples}); take a code model that has them, or continue the text without infill"
    )
