"""Tokens that end an answer, known by their text, since many files name only one of them.

The texts are those that llama.cpp knows (``special_eog_ids``): end of text, of turn and of message, and the
separators between files of a repository, after which a model writes another file instead of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchless.text.gap_tokens import GAP_MARKS, SEPARATOR_TEXTS

__all__ = ["CONTROL_TEXTS", "find_end_ids"]

_END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    *SEPARATOR_TEXTS["eot"],
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[e~[",
)
# For each of these roles the file's own id counts, else the first text that is a token.
_FILL_IN_TEXTS = {role: SEPARATOR_TEXTS[role] for role in ("fim_pad", "fim_rep", "fim_sep")}

# These frame the text around a gap; they do not end an answer, but are control tokens, too.
_GAP_TEXTS = [text for row in GAP_MARKS for text in (row.prefix, row.suffix, row.middle) if text is not None]

CONTROL_TEXTS = frozenset((*_END_TEXTS, *_GAP_TEXTS)).union(*_FILL_IN_TEXTS.values())
"""Texts whose tokens are control tokens even where the file calls them normal ones."""


def find_end_ids(special_ids: Mapping[str, int], id_of: Callable[[str], int | None]) -> frozenset[int]:
    """All ids after which generation ends.

    Args:
        special_ids: ids that the file names by role.
        id_of: finds a token by its text.
    """
    ids = {special_ids[role] for role in ("eos", "eot", "eom") if role in special_ids}
    by_text = {text: number for text in _END_TEXTS if (number := id_of(text)) is not None}
    if {"<|return|>", "<|call|>"} <= by_text.keys() or {"<|calls|>", "<|flush|>"} <= by_text.keys():
        by_text.pop("<|end|>", None)  # There it ends a message of several in one answer.
    if "<|tool_response>" in by_text:
        by_text.pop("</s>", None)  # There it is a tag of HTML (struck-out text).
    for role, texts in _FILL_IN_TEXTS.items():
        found = [number for text in texts if (number := id_of(text)) is not None]
        ids.update([special_ids[role]] if role in special_ids else found[:1])
    return frozenset(ids.union(by_text.values()))
