"""What a request asks for, and its way to a checked generation: shared by all methods that write text."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from torchless.answers import Answers, params_of_answers
from torchless.arguments import whole_number
from torchless.constraints.requests import Constraints, take_grammar
from torchless.errors import ContextLengthError, InvalidRequestError
from torchless.generation import Generation
from torchless.loading import LoadedModel
from torchless.prompts import Prompts
from torchless.sampling.parameters import SamplingParams

if TYPE_CHECKING:
    from torchless.constraints.grammars import Grammar

__all__ = ["Messages", "Prompt", "Request", "Requests"]

_ABSENT: Any = object()  # where None is a wrong value like others, which the check of that value names

Prompt = str | SequenceOf[int]
Messages = SequenceOf[Mapping[str, Any]]


@dataclass(frozen=True, init=False)
class Request:
    """One of several requests, with sampling parameters of its own: for `LLM.batch`, `submit` and `agenerate`.

    Exactly one of `prompt`, `messages`, and the pair `prefix` and `suffix` is given; the others are None.

    Attributes:
        kind: which of them was given.
        prompt: a text or token ids to continue, as in `LLM.generate`.
        messages: a conversation to answer, as in `LLM.chat`.
        tools: JSON schemas of functions that the template shows to the model; None without any.
        chat_template_kwargs: further values that the template knows (``{"enable_thinking": False}``).
        prefix, suffix, order: a gap to fill, as in `LLM.infill`.
        parse_special, logits_hash, params: as in `LLM.generate`.
        show_special: write control tokens into the answer as their texts, instead of leaving them out.
        priority: below 0 comes before, above 0 behind requests that came at the same time: each step counts as
            10 seconds of waiting, so that nobody waits for ever. -100 to 100. Changes no answer.
        sampling: fields of `SamplingParams`, and what the text must match, also under other tools' names.

    Example:
        >>> Request("Once upon a time", max_tokens=5, temperature=0).sampling
        {'max_tokens': 5, 'temperature': 0}
    """

    kind: Literal["text", "chat", "gap"]
    prompt: Prompt | None
    messages: Messages | None
    prefix: str | None
    suffix: str | None
    order: str | None
    tools: SequenceOf[Mapping[str, Any]] | None
    chat_template_kwargs: Mapping[str, Any]
    parse_special: bool
    show_special: bool
    logits_hash: bool
    params: SamplingParams | None
    priority: int
    sampling: Mapping[str, Any]

    def __init__(
        self,
        prompt: Prompt = _ABSENT,
        *,
        messages: Messages = _ABSENT,
        prefix: str = _ABSENT,
        suffix: str = _ABSENT,
        order: str | None = None,
        tools: SequenceOf[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        parse_special: bool = False,
        show_special: bool = False,
        logits_hash: bool = False,
        params: SamplingParams | None = None,
        priority: int = 0,
        **sampling: Any,
    ) -> None:
        values: dict[str, Any] = {
            "prompt": prompt,
            "messages": messages,
            "prefix": prefix,
            "suffix": suffix,
            "order": order,
            "tools": tools,
            "chat_template_kwargs": {} if chat_template_kwargs is None else chat_template_kwargs,
            "parse_special": parse_special,
            "show_special": show_special,
            "logits_hash": logits_hash,
            "params": params,
            "priority": priority,
            "sampling": sampling,
        }
        given = [name for name, value in values.items() if value is not _ABSENT]
        for name, value in values.items():
            object.__setattr__(self, name, None if value is _ABSENT else value)
        object.__setattr__(self, "kind", _kind(given))
        self._check()

    def _check(self) -> None:
        if self.order is not None and self.kind != "gap":
            raise InvalidRequestError("order says how a gap is asked for; it needs prefix and suffix")
        for name in ("tools", "chat_template_kwargs"):
            if getattr(self, name) and self.kind != "chat":
                raise InvalidRequestError(f"{name} is for a chat template; it needs messages")
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise InvalidRequestError(
                f"chat_template_kwargs must be a dictionary, got {type(self.chat_template_kwargs).__name__}"
            )
        whole_number("priority", self.priority, -100, 100)
        if self.kind == "chat" and self.parse_special:
            raise InvalidRequestError(
                "parse_special has no meaning for messages, whose template writes tokens"
            )

    @staticmethod
    def of(item: Prompt | Request, options: Mapping[str, Any]) -> Request:
        """A prompt with options, or a request as it is."""
        if not isinstance(item, Request):
            return Request(item, **options)
        if options:
            raise TypeError(f"a Request has its own options; got {', '.join(options)} beside it")
        return item


class Requests:
    """Checks requests for one model and makes generations of them.

    Args:
        loaded: the model.
        prompts: encodes for it.
        check_usable: raises once the model is closed.
    """

    def __init__(self, loaded: LoadedModel, prompts: Prompts, check_usable: Callable[[], None]) -> None:
        self._loaded = loaded
        self._prompts = prompts
        self._check_usable = check_usable
        self._constraints = Constraints(loaded.tokenizer, loaded.executor.vocab_size)

    def answers(self, request: Request, defaults: SamplingParams, grammar: Grammar | None = None) -> Answers:
        """The generations of a checked request; its clock starts before the prompt is encoded.

        Args:
            defaults: sampling parameters where the request names none.
            grammar: what the text must match where the request says nothing of it.

        Raises:
            ContextLengthError, GrammarError, InvalidRequestError, TemplateError, TokenizerError, TypeError,
                UnsupportedError: as `LLM.generate`, `LLM.chat` and `LLM.infill` document.
        """
        called_at = time.perf_counter()
        self._check_usable()
        self.require_logits()
        sampling = dict(request.sampling)
        grammar = take_grammar(sampling) or grammar
        params = (request.params or defaults).updated(**sampling).seeded()
        self._prompts.check_bias(params.logit_bias)
        ids = self.encode(request)
        context_length = self._loaded.context_length
        if len(ids) >= context_length:
            raise ContextLengthError(len(ids), context_length)
        tokenizer = self._loaded.tokenizer
        infill = tokenizer.infill if request.kind == "gap" else None
        more_end_ids = infill.end_ids if infill is not None else ()
        generations = [
            Generation(
                ids,
                one,
                tokenizer,
                context_length=context_length,
                continuation=request.kind != "chat",
                show_special=request.show_special,
                logits_hash=request.logits_hash,
                called_at=called_at,
                more_end_ids=more_end_ids,
                constraint=self._constraints.matcher(grammar, more_end_ids) if grammar is not None else None,
                is_json=grammar is not None and grammar.is_json,
                index=index,
                has_score=params.best_of is not None,
                priority=request.priority,
            )
            for index, one in enumerate(params_of_answers(params))
        ]
        return Answers(generations, params.n)

    def plain_prompt(self, request: Request) -> tuple[npt.NDArray[np.int32], Collection[int]]:
        """Token ids of a request in which nothing is asked for but its prompt, and the tokens that end its answer.

        Raises:
            InvalidRequestError: it has sampling parameters, or other options of what is computed for it.
        """
        self._check_usable()
        self.require_logits()
        if request.sampling or request.params is not None or request.logits_hash:
            raise InvalidRequestError(
                "a beam search picks no tokens by sampling parameters and hashes no logits: leave them out"
            )
        infill = self._loaded.tokenizer.infill if request.kind == "gap" else None
        more_end_ids = infill.end_ids if infill is not None else ()
        return self.encode(request), {*self._loaded.tokenizer.eos_ids, *more_end_ids}

    def close(self) -> None:
        """Ends the threads that compute what constraints allow."""
        self._constraints.close()

    def require_logits(self) -> None:
        """Refuses a model that writes no text."""
        kind = self._loaded.plan.output_kind
        if kind != "logits":
            makes, method = {"states": ("embeddings", "embed"), "scores": ("scores", "rerank")}[kind]
            raise InvalidRequestError(
                f"this model was loaded to make {makes} and writes no text: call {method} (torchless {method}), or "
                f"load a model that writes text with task='generate'"
            )

    def encode(self, request: Request) -> npt.NDArray[np.int32]:
        """Token ids of a request's prompt."""
        if request.kind == "chat":
            return self._prompts.encode_chat(
                cast(Messages, request.messages), request.tools, request.chat_template_kwargs
            )
        if request.kind == "gap":
            return self._prompts.encode_infill(
                cast(str, request.prefix),
                cast(str, request.suffix),
                request.order,
                parse_special=request.parse_special,
            )
        return self._prompts.encode(cast(Prompt, request.prompt), parse_special=request.parse_special)


def _kind(given: list[str]) -> Literal["text", "chat", "gap"]:
    """What a request is, by the names of what was given."""
    if ("prefix" in given) != ("suffix" in given):
        raise InvalidRequestError("a gap needs both prefix and suffix; either may be empty")
    kinds: dict[str, Literal["text", "chat", "gap"]] = {"prompt": "text", "messages": "chat", "prefix": "gap"}
    found = [name for name in kinds if name in given]
    if len(found) != 1:
        raise InvalidRequestError(
            f"a request has a prompt, or messages, or prefix and suffix; got {' and '.join(found) or 'nothing'}"
        )
    return kinds[found[0]]
