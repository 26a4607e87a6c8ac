"""A loaded model that answers in a chat: splits off its reasoning, changes its template, makes room for another."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.chat.partners import Piece, Progress, Question, Report
from torchless.chat.swapping import Swap
from torchless.chat.templates import FoundTemplate, find_template, list_templates
from torchless.prompts import Prompts
from torchless.requests import Request
from torchless.sampling.parameters import SamplingParams
from torchless.text.chat_template import ChatTemplate
from torchless.text.reasoning import ReasoningSplitter, ReasoningStyle, Span, find_style
from torchless.text.thinking import thinking_values

if TYPE_CHECKING:
    from torchless.futures import Future
    from torchless.llm import LLM
    from torchless.results import Chunk, Completion

__all__ = ["LocalPartner"]


class LocalPartner:
    """A loaded model. Owns it: `close` frees it, `switch` and `reload` replace it.

    Args:
        llm: the model.
        keywords: of `torchless.load`, without the model, with which it was loaded.
        model: what was loaded, as `torchless.load` takes it.
    """

    is_remote = False

    def __init__(self, llm: LLM, model: str | None, keywords: Mapping[str, Any]) -> None:
        self._swap = Swap(llm, model, dict(keywords))
        self._template: FoundTemplate | None = None  # chosen in the chat, instead of the model's
        self._made: Prompts  # for this model and template:
        self._made_for: tuple[LLM, str | None] | None = None

    @property
    def llm(self) -> LLM:
        """The model that answers now. Raises InvalidRequestError where none could be loaded again."""
        return self._swap.llm

    @property
    def name(self) -> str:
        return str(self.llm.info.get("name") or Path(str(self.llm.info["path"])).stem)

    @property
    def defaults(self) -> SamplingParams:
        return self.llm.defaults

    @property
    def context_length(self) -> int | None:
        return self.llm.context_length

    def answer(self, question: Question) -> LocalAnswer:
        llm = self.llm
        text = self.prompt_text(question)
        # What must match a constraint begins with what that says, not with reasoning.
        style = find_style(self._source()) if not question.constraint else None
        options: dict[str, Any] = {"params": question.params, **question.constraint}
        if style is not None and _has_control_marks(style, llm):
            options["show_special"] = True
        values = self._thinking_values(question.thinking)
        if self._template is None:
            request = Request(messages=question.messages, chat_template_kwargs=values, **options)
        else:
            ids = self._prompts().encode_chat(question.messages, values=values).tolist()
            request = Request(ids, **options)
        splitter = None
        if style is not None:
            splitter = ReasoningSplitter(style, starts_inside=text.rstrip().endswith(style.opening))
        strips = self._template is not None and llm.tokenizer.strips_leading_space
        return LocalAnswer(llm.submit(request), splitter, strips_space=strips)

    def prompt_text(self, question: Question) -> str:
        values = self._thinking_values(question.thinking)
        return self._prompts().render_chat(question.messages, values=values)

    def check_thinking(self, thinking: str) -> None:
        self._thinking_values(thinking)

    def count_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        return len(self._prompts().encode_chat(messages)) if messages else 0

    def describe(self) -> list[tuple[str, str]]:
        info = self.llm.info
        threads = info["num_threads"]
        return [
            ("model", str(info["path"])),
            (
                "runs on",
                f"{info['backend']} backend, {threads} thread{'s' if threads != 1 else ''}, {info['kv_type']} cache, "
                f"{info['activations']} activations{', fast prompts' if info['fast'] else ''}",
            ),
            ("template", self._template.description if self._template is not None else ""),
        ]

    def switch(self, model: str, progress: Progress) -> list[str]:
        notes = self._swap.switch(model, progress)
        self._template = None
        return notes

    def reload(self, progress: Progress, **changes: Any) -> list[str]:
        return self._swap.reload(progress, **changes)

    @property
    def templates(self) -> list[tuple[str, str]]:
        return list_templates(self.llm.tokenizer, self._swap.keywords.get("chat_template"), self._template)

    def use_template(self, name: str) -> str:
        found = find_template(name, self.llm.tokenizer)
        ChatTemplate(found.source)  # raises for one that is not valid
        self._template = found
        return found.description

    def close(self) -> None:
        self._swap.close()

    # -- rendering --------------------------------------------------------------------------------

    def _source(self) -> str | None:
        """Jinja source of the template in use."""
        if self._template is not None:
            return self._template.source
        return self._swap.keywords.get("chat_template") or self.llm.tokenizer.chat_template

    def _thinking_values(self, thinking: str | None) -> dict[str, Any]:
        return {} if thinking is None else thinking_values(self._source(), thinking)

    def _prompts(self) -> Prompts:
        """What renders and encodes conversations with the template in use."""
        source = None if self._template is None else self._template.source
        source = source or self._swap.keywords.get("chat_template")
        if self._made_for != (self.llm, source):
            vocab_size = int(self.llm.info["vocab_size"])
            self._made = Prompts(self.llm.tokenizer, vocab_size, source)
            self._made_for = (self.llm, source)
        return self._made


class LocalAnswer:
    """An answer of a loaded model; see `partners.Answer`."""

    def __init__(
        self,
        future: Future,
        splitter: ReasoningSplitter | None,
        *,
        strips_space: bool,
    ) -> None:
        self.num_tokens = 0
        self.report: Report | None = None
        self._future = future
        self._splitter = splitter
        self._strips_space = strips_space
        self._asked_at = time.perf_counter()
        self._first_at = self._last_at = self._asked_at

    def __iter__(self) -> Iterator[Piece]:
        try:
            for chunk in self._future:
                self._count(chunk)
                yield from self._pieces(chunk)
                if chunk.completion is not None:
                    self.report = _report(chunk.completion)
        except CancelledError:
            if self._splitter is not None:
                yield from map(_piece, self._splitter.flush())
            self.report = self._cancelled()

    def cancel(self) -> None:
        self._future.cancel()

    def _count(self, chunk: Chunk) -> None:
        if chunk.token_ids:
            self._last_at = time.perf_counter()
            if not self.num_tokens:
                self._first_at = self._last_at
        self.num_tokens += len(chunk.token_ids)

    def _pieces(self, chunk: Chunk) -> Iterator[Piece]:
        text = chunk.text
        if self._strips_space and text:
            self._strips_space, text = False, text.removeprefix(" ")
        if self._splitter is None:
            if text:
                yield Piece(text)
            return
        spans = self._splitter.push(text)
        if chunk.completion is not None:
            spans += self._splitter.flush()
        yield from map(_piece, spans)

    def _cancelled(self) -> Report:
        seconds = self._last_at - self._first_at
        return Report(
            finish_reason="cancelled",
            num_prompt_tokens=None,
            num_completion_tokens=self.num_tokens,
            tokens_per_second=(self.num_tokens - 1) / seconds if seconds > 0 else 0.0,
            first_token_ms=(self._first_at - self._asked_at) * 1000,
        )


def _has_control_marks(style: ReasoningStyle, llm: LLM) -> bool:
    """Whether the marks are control tokens, which an answer leaves out unless they are asked for."""
    opening = style.opening.partition(">")[0] + ">"  # the first of several tokens
    tokens = llm.tokenizer
    ids = {tokens.token_to_id(mark) for mark in (opening, style.opening, style.closing)}
    return not tokens.special_ids.isdisjoint(ids - {None})


def _piece(span: Span) -> Piece:
    return Piece(span.text, span.is_reasoning)


def _report(completion: Completion) -> Report:
    usage, timings = completion.usage, completion.timings
    return Report(
        finish_reason=completion.finish_reason,
        num_prompt_tokens=usage.num_prompt_tokens,
        num_completion_tokens=usage.num_completion_tokens,
        tokens_per_second=timings.decode_tokens_per_second,
        first_token_ms=timings.time_to_first_token_ms,
        num_cached_tokens=usage.num_cached_tokens,
        seed=completion.params.seed,
    )
