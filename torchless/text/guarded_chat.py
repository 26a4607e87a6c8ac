"""A conversation to token ids, so that only the template, never a message, writes control tokens.

The template is rendered as it is, and once more with marks in what it was given (`marked_inputs.py`). Without its marks
the second text must be the first; then the marks tell whose each token is. Text from outside that spells a token
is encoded as plain text between the template's own tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchless.errors import TemplateError
from torchless.text.chat_template import ChatTemplate
from torchless.text.guarded_tokens import GuardedTokens, Span
from torchless.text.marked_inputs import InputMarker, escaped, pick_mark
from torchless.text.tokenizer import Tokenizer

__all__ = ["GuardedChat"]


class GuardedChat:
    """Encodes conversations for one tokenizer and template. Safe to use from several threads.

    Attributes:
        template: the chat template.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self._tokens = GuardedTokens.of(tokenizer)
        # An unknown token is a control token that plain text becomes, too.
        self._control_ids = self._tokens.library_ids - {tokenizer.unknown_id}

    def encode(self, /, messages: Sequence[Mapping[str, Any]], **values: Any) -> list[int]:
        """Token ids of the rendered conversation, without a begin token that the template does not write.

        Args:
            messages, values: as `ChatTemplate.render` takes them.

        Raises:
            TemplateError: as `ChatTemplate.render`; or a message spells a control token, and what the template
                makes of the message does not let it be told from the template's own.
            TokenizerError: the rendered text has lone surrogates.
        """
        moment = self.template.now()  # one for all renderings
        values = {"strftime_now": moment.strftime, **values}
        text = self.template.render(messages, **values)
        if not self._tokens.ids:
            return self._whole(text)
        mark = pick_mark(list(messages), values, self.template.source, text)
        for spares_literals in (False, True):
            marker = InputMarker(self._tokens, self.template.literals, mark, spares_literals)
            marked = self._rendered(marker, messages, values, mark)
            if marked is not None and marked.replace(mark, "") == text:
                return self._encoded(text, self._own_spans(marked, mark))
        # The template looks at what the marks change. That does not matter where no text from outside spells a token.
        spans = self._tokens.find(text)
        own = [] if marked is None else self._own_spans(marked, mark)
        if marked is None or [span.token for span in own] != [span.token for span in spans]:
            raise self._refusal(spans, own)
        return self._whole(text)

    def _rendered(
        self, marker: InputMarker, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any], mark: str
    ) -> str | None:
        """The text with marks, None where the template fails on them."""
        marked = {name: marker.value(value) for name, value in values.items()}
        try:
            text = self.template.render(marker.messages(list(messages)), **marked)
        except TemplateError:
            return None
        return text.replace(escaped(mark), mark)

    def _own_spans(self, marked: str, mark: str) -> list[Span]:
        """The template's tokens in the text with marks, where they lie without."""
        spans: list[Span] = []
        num_marks = position = 0
        for start, stop, index in self._tokens.find(marked):
            num_marks += marked.count(mark, position, start)
            position = start
            if stop - start > 1 or start == 0 or marked[start - 1] != mark:  # one character cannot be broken
                spans.append(Span(start - num_marks, stop - num_marks, index))
        return spans

    def _encoded(self, text: str, own: list[Span]) -> list[int]:
        if self._tokens.find(text) == own:
            ids = self._whole(text)
            num_own = sum(span.token in self._control_ids for span in own)
            if sum(index in self._control_ids for index in ids) == num_own:
                return ids
        return self._by_sections(text, own)

    def _by_sections(self, text: str, own: list[Span]) -> list[int]:
        """Ids of a text in which only some spelled tokens are tokens."""
        ids: list[int] = []
        position = 0
        for span in own:
            start, stop, index = self._tokens.widen(span, text, position)
            ids += self._section(text[position:start], position == 0)
            ids.append(index)
            position = stop
        return ids + self._section(text[position:], position == 0)

    def _whole(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, parse_special=True)

    def _section(self, text: str, is_first: bool) -> list[int]:
        """Ids of the text between two of the template's tokens: no guarded token is among them."""
        if not text:
            return []
        spans = self._tokens.find(text)
        cuts = [span.start + 1 for span in spans if span.token not in self._control_ids]
        ids = self._pieces(text, cuts, is_first)
        if self._control_ids.intersection(ids):  # of a vocabulary whose merges make them, or that normalises
            ids = self._pieces(text, [span.start + 1 for span in spans], is_first)
        return ids

    def _pieces(self, text: str, cuts: list[int], is_first: bool) -> list[int]:
        ids: list[int] = []
        for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
            if start == 0 and (is_first or self._begins_anew):
                ids += self._tokenizer.encode(text[:stop], add_special_tokens=False)
            else:
                ids += self._tokenizer.encode_behind(text[start:stop])
        return ids

    @property
    def _begins_anew(self) -> bool:
        """Whether text behind a control token is encoded as at the beginning, with the same space in front or none."""
        token = next((text for text, index in self._tokens.ids.items() if index in self._control_ids), "")
        return self._whole(token + "x")[1:] == self._tokenizer.encode("x", add_special_tokens=False)

    def _refusal(self, spans: list[Span], own: list[Span]) -> TemplateError:
        texts = {index: text for text, index in self._tokens.ids.items()}
        known = [span.token for span in own]
        spelled = sorted({texts[span.token] for span in spans if span.token not in known}) or sorted(
            {texts[span.token] for span in spans}
        )
        return TemplateError(
            f"a message spells a token that only the chat template may write, or part of one, and the template changes "
            f"messages in a way that hides whose it is; take it out of the messages (one of {', '.join(spelled[:8])})"
        )
