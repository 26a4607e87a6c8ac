"""From what a user hands in (text, token ids, messages) to checked token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError
from torchless.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torchless.text.guarded_chat import GuardedChat

__all__ = ["Prompts"]

Ids = npt.NDArray[np.int32]


class Prompts:
    """Encodes prompts for one model.

    Args:
        tokenizer: the model's.
        vocab_size: token ids are below it: rows of the embedding, which may be more than the tokenizer's.
        chat_template: Jinja source that replaces the model's own, or None.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, chat_template: str | None) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._template_source = chat_template
        self._chat: GuardedChat | None = None  # with the template compiled, from the first chat on

    def encode(self, prompt: str | Sequence[int], *, parse_special: bool = False) -> Ids:
        """Token ids of a text (with the begin token, where the model wants one) or of a list of ids.

        Raises:
            InvalidRequestError: neither text nor ids, ids outside the vocabulary, or empty for a model
                without begin token.
            TokenizerError: the text has lone surrogates.
        """
        ids: npt.NDArray[np.integer[Any]]
        if isinstance(prompt, str):
            ids = np.array(self._tokenizer.encode(prompt, parse_special=parse_special), dtype=np.int64)
        else:
            ids = _whole_numbers(prompt)
        outside = ids[(ids < 0) | (ids >= self._vocab_size)] if len(ids) else ids
        if len(outside):
            raise InvalidRequestError(
                f"the prompt has token id {outside[0]}, the model has ids 0 .. {self._vocab_size - 1}"
            )
        if len(ids):
            return ids.astype(np.int32)
        if self._tokenizer.bos_id is None:
            raise InvalidRequestError(
                "the prompt is empty and the model has no begin token to start from; give it some text"
            )
        return np.array([self._tokenizer.bos_id], dtype=np.int32)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Ids:
        """Token ids of a conversation, up to where the assistant's answer begins.

        Control tokens are the template's own: what spells one in a message, or in any other value, is plain text
        (docs/tokenizers.md).

        Args:
            messages, tools: as `ChatTemplate.render` has them.
            values: further values that the template knows.

        Raises:
            TemplateError: no template, malformed messages, the template refuses them, or changes a message that
                spells a control token in a way that hides whose that is.
            TokenizerError: the rendered text has lone surrogates.
        """
        given = _template_values(tools, values)
        ids = self._guarded_chat().encode(messages, **given)
        begin = self._tokenizer.encode("")[:1]  # the begin token, where the model wants one
        if begin and begin[0] == self._tokenizer.bos_id and ids[:1] != begin:
            ids = [*begin, *ids]  # most templates write it themselves
        return self.encode(ids)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation; see `encode_chat`."""
        return self._guarded_chat().template.render(messages, **_template_values(tools, values))

    def encode_infill(
        self, prefix: str, suffix: str, order: str | None, *, parse_special: bool = False
    ) -> Ids:
        """Token ids of a text with a gap, up to where the gap is to be filled.

        Raises:
            UnsupportedError: the model was not trained to fill gaps.
            InvalidRequestError: an order that the model cannot be asked in.
            TokenizerError: not text, or a text with lone surrogates.
        """
        return self.encode(
            self._tokenizer.encode_infill(prefix, suffix, order=order, parse_special=parse_special)
        )

    @staticmethod
    def check_list(method: str, prompts: Iterable[object]) -> None:
        """Refuses a single prompt where several are expected."""
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise InvalidRequestError(f"{method} takes a list of prompts, got {type(prompts).__name__}")

    def check_bias(self, biases: Mapping[int, float]) -> None:
        """Refuses token ids outside the vocabulary."""
        for token_id in biases:
            if token_id >= self._vocab_size:
                raise InvalidRequestError(
                    f"logit_bias names token {token_id}, the model has ids 0 .. {self._vocab_size - 1}"
                )

    def _guarded_chat(self) -> GuardedChat:
        if self._chat is None:
            from torchless.text.chat_template import ChatTemplate
            from torchless.text.guarded_chat import GuardedChat

            source, tokens = self._template_source, self._tokenizer
            template = (
                ChatTemplate.from_tokenizer(tokens)
                if source is None
                else ChatTemplate(source, tokens.bos_token, tokens.eos_token)
            )
            self._chat = GuardedChat(tokens, template)
        return self._chat


def _template_values(
    tools: Sequence[Mapping[str, Any]] | None, values: Mapping[str, Any] | None
) -> dict[str, Any]:
    given = dict(values or {})
    reserved = {"messages", "tools", "add_generation_prompt", "documents"} & given.keys()
    if reserved or not all(isinstance(name, str) for name in given):
        raise InvalidRequestError(
            f"chat_template_kwargs has {', '.join(sorted(map(str, reserved or given)))}; it names further values "
            f"of the template, such as enable_thinking"
        )
    return {"tools": list(tools) if tools else None, **given}


def _whole_numbers(prompt: Sequence[int]) -> npt.NDArray[np.integer[Any]]:
    try:
        ids = np.asarray(prompt)
    except (ValueError, OverflowError):  # ragged
        ids = np.empty((0, 0))
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise InvalidRequestError(
            f"a prompt is a text or a list of token ids (whole numbers), got {_shown(prompt)}"
        )
    return ids


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 80 else text[:77] + "..."
