"""``torchless run``: continues a text or answers a question, streaming to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.answers import ANSWER_OPTIONS, answer_keywords, chunks_of_choices, write_answers
from torchless.cli.beams import BEAM_OPTIONS, beam_keywords
from torchless.cli.constraint_options import CONSTRAINT_OPTIONS, constraint_keywords
from torchless.cli.infill import INFILL_OPTIONS, Gap, gap_of
from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.logprobs import print_logprobs
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prefix_cache_options import PREFIX_CACHE_OPTIONS
from torchless.cli.prompt import gather_text, split_words
from torchless.cli.sampling_options import SAMPLING_OPTIONS, sampling_keywords
from torchless.cli.speculative_options import SPECULATIVE_OPTIONS
from torchless.cli.statistics import write_metrics
from torchless.cli.terminal import TextOutput, is_terminal, note
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.llm import LLM
    from torchless.results import Chunk, Completion

__all__ = ["command"]

_HELP = """Continue a text, or answer a question, and stream the result to stdout.

MODEL is a GGUF file, a Hugging Face folder, a name such as org/repo:Q4_K_M on the Hugging Face hub, or a URL;
what is named is downloaded once. A single argument that names no file is a prompt for the
built-in model, which tells small stories. Piped standard input is the prompt, or follows it after a blank
line.

A model that has a chat template gets the prompt as a question, rendered by that template; a model that has
none, and the built-in one, continue the text. --chat and --raw choose. Without a prompt, a model with a
template chats on a terminal (as 'torchless chat' does), and others write from their begin token.

With --fim or --fim-file the model writes what stands between two texts; --echo prints all three.
"""

_PROMPT = "Prompt and output"

PROMPT_OPTIONS = (
    Option("-p", "--prompt", heading=_PROMPT, metavar="TEXT", help="Same as the argument PROMPT."),
    Option(
        "-f",
        "--file",
        heading=_PROMPT,
        metavar="FILE",
        help="Read the prompt from a file; - is standard input.",
    ),
    Option(
        "--chat/--raw",
        "as_chat",
        default=None,
        heading=_PROMPT,
        help="Use the chat template, or never.  [--chat if MODEL has one]",
    ),
    Option("--system", heading=_PROMPT, metavar="TEXT", help="A system message before the question."),
    Option(
        "--echo/--no-echo",
        default=None,
        heading=_PROMPT,
        help="Print the text that is continued before its continuation.  [on a terminal, if it was typed]",
    ),
    Option(
        "--wrap/--no-wrap",
        default=True,
        heading=_PROMPT,
        help="Break lines between words on a terminal.  [yes]",
    ),
    Option(
        "--metrics",
        metavar="FILE",
        heading=_PROMPT,
        help="Write counters and histograms in Prometheus' text form at the end; - is stderr.",
    ),
    Option(
        "--stats",
        is_flag=True,
        heading=_PROMPT,
        help="Print speed, memory and logits hash at the end, on stderr.",
    ),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What shall be generated.

    Attributes:
        prompt: None where the user gave none.
        as_chat: use the chat template; None decides by the model.
        echo: print the prompt first, where it is continued; None decides by the terminal and the prompt.
        gap: the texts around a gap that is to be filled instead.
        beams: keywords of a beam search that is made instead of picking tokens.
    """

    prompt: str | None
    as_chat: bool | None
    system: str | None
    echo: bool | None
    stats: bool
    metrics: str | None
    sampling: dict[str, Any]
    gap: Gap | None = None
    beams: dict[str, Any] | None = None

    @property
    def num_answers(self) -> int:
        """How many answers are printed."""
        return int(self.sampling.get("n", 1))

    @property
    def is_ranked(self) -> bool:
        """Whether some of the answers are dropped, so that none can be shown before all have ended."""
        return int(self.sampling.get("best_of", 1)) > self.num_answers


@click.command("run", cls=Verb, help=_HELP, short_help="Continue a text or answer a question.")
@with_options(
    [words_argument("[MODEL] [PROMPT]")],
    PROMPT_OPTIONS,
    INFILL_OPTIONS,
    SAMPLING_OPTIONS,
    CONSTRAINT_OPTIONS,
    ANSWER_OPTIONS,
    BEAM_OPTIONS,
    LOAD_OPTIONS,
    SPECULATIVE_OPTIONS,
    PREFIX_CACHE_OPTIONS,
)
def command(
    words: tuple[str, ...], model: str | None, prompt: str | None, file: str | None, wrap: bool, **values: Any
) -> None:
    sampling = sampling_keywords(values)
    constraint = constraint_keywords(values)
    shown = answer_keywords(values)
    asked = {**sampling, **constraint, **shown}
    beams = beam_keywords(values, asked, (SAMPLING_OPTIONS, CONSTRAINT_OPTIONS, ANSWER_OPTIONS))
    load = load_keywords(values)
    gap = gap_of(values)
    given = prompt is not None or file is not None or gap is not None
    named, text = split_words(words, model, text_given=given)
    if gap is not None:
        _refuse_beside_a_gap(prompt, file, values)
        request = Request(prompt="", sampling=asked, gap=gap, beams=beams, **{**values, "as_chat": False})
        was_typed = gap.was_typed
    else:
        given_text = gather_text(text, prompt, file)
        request = Request(prompt=given_text, sampling=asked, beams=beams, **values)
        was_typed = request.prompt == (prompt if text is None else text)
    if request.echo is None:  # what was typed, not what a file or a pipe brought
        request = replace(request, echo=is_terminal(sys.stdout) and was_typed and request.num_answers == 1)
    is_interactive = request.prompt is None and is_terminal(sys.stdin) and is_terminal(sys.stdout)
    output, progress = TextOutput(wrap=wrap), LoadProgress(named)

    def leave() -> None:
        progress.abandon()
        output.abandon()

    with SignalWatch(leave) as watch, load_for_verb(named, load, progress) as llm:
        as_chat = request.as_chat
        if as_chat is None:  # the built-in model is a storyteller first
            own_template = llm.tokenizer.chat_template if named is not None or is_interactive else None
            as_chat = "chat_template" in load or own_template is not None
        if is_interactive and as_chat:
            _refuse_in_a_chat({**shown, **(beams or {})})
            from torchless.chat.conversation import Conversation
            from torchless.chat.local import LocalPartner
            from torchless.cli.chat_session import ChatSession

            with watch.suspended(), closing(LocalPartner(llm, named, load)) as partner:
                talk = Conversation(llm.defaults.updated(**sampling), request.system)
                ChatSession(partner, talk, constraint, chosen=sampling).run()
        else:
            generate(llm, replace(request, as_chat=as_chat), output)


def generate(llm: LLM, request: Request, output: TextOutput) -> None:
    """Streams the answer, or several, and prints what was asked for about them."""
    sampling = {**request.sampling, "logits_hash": request.stats}
    chunks = _chunks(llm, request, sampling, output)
    completions: list[Completion] = []
    try:
        completions = write_answers(chunks, output, request.num_answers)
        if request.gap is not None and request.echo:
            output.write(request.gap.suffix, dim=True)
    except KeyboardInterrupt:
        output.interrupted()
        raise
    finally:
        output.finish_line()
    if any(_filled_the_context(completion) for completion in completions):
        note(f"The context of {llm.context_length} tokens is full; --ctx makes it longer.")
    print_logprobs(completions)
    if request.metrics is not None:
        write_metrics(llm, request.metrics)
    if request.stats:
        from torchless.cli.statistics import statistics_block

        for completion in completions:
            lines = statistics_block(llm, completion)
            click.echo("\n".join(["", *lines] if is_terminal(sys.stderr) else lines), err=True)


def _filled_the_context(completion: Completion) -> bool:
    num_tokens = completion.usage.num_completion_tokens
    return completion.finish_reason == "length" and num_tokens != completion.params.max_tokens


def _chunks(llm: LLM, request: Request, sampling: dict[str, Any], output: TextOutput) -> Iterator[Chunk]:
    if request.gap is not None:
        return _filling(llm, request, request.gap, sampling, output)
    return (
        _answer(llm, request, sampling) if request.as_chat else _continuation(llm, request, sampling, output)
    )


def _whole(method: Callable[..., Completion]) -> Callable[..., Iterator[Chunk]]:
    """A method that waits for its answers, as one that gives pieces of them."""
    return lambda *texts, **options: chunks_of_choices(method(*texts, **options))


def _sought(llm: LLM, beams: dict[str, Any], **prompt: Any) -> Iterator[Chunk]:
    """The answers of a beam search to what a `torchless.Request` is made of."""
    import torchless

    return chunks_of_choices(llm.beam_search(torchless.Request(**prompt), **beams))


def _filling(
    llm: LLM, request: Request, gap: Gap, sampling: dict[str, Any], output: TextOutput
) -> Iterator[Chunk]:
    if request.beams is not None:
        chunks = _sought(llm, request.beams, prefix=gap.prefix, suffix=gap.suffix, order=gap.order)
    else:
        ask = _whole(llm.infill) if request.is_ranked else llm.stream_infill
        chunks = ask(gap.prefix, gap.suffix, order=gap.order, **sampling)
    if request.echo:
        output.write(gap.prefix, dim=True)
    return chunks


def _refuse_in_a_chat(keywords: dict[str, Any]) -> None:
    """What is asked of the answer to one prompt has no place in a conversation."""
    for name in keywords:
        options = (*ANSWER_OPTIONS, *BEAM_OPTIONS)
        flag = next((option.opts[0] for option in options if option.name == name), "--beams")
        raise click.UsageError(f"{flag} is about the answer to one prompt: give a prompt")


def _refuse_beside_a_gap(prompt: str | None, file: str | None, values: dict[str, Any]) -> None:
    """Nothing else is continued or asked where a gap is filled."""
    given = {
        "--prompt": prompt,
        "--file": file,
        "--system": values["system"],
        "--chat": values["as_chat"] or None,
    }
    for flag, value in given.items():
        if value is not None:
            raise click.UsageError(f"{flag} has no meaning beside --fim, which fills a gap between two texts")


def _answer(llm: LLM, request: Request, sampling: dict[str, Any]) -> Iterator[Chunk]:
    if not request.prompt:
        raise InvalidRequestError(
            "the prompt is empty, and a chat needs a question; give one, or start from nothing with --raw"
        )
    system = [{"role": "system", "content": request.system}] if request.system is not None else []
    messages = [*system, {"role": "user", "content": request.prompt}]
    if request.beams is not None:
        return _sought(llm, request.beams, messages=messages)
    return (_whole(llm.chat) if request.is_ranked else llm.stream_chat)(messages, **sampling)


def _continuation(
    llm: LLM, request: Request, sampling: dict[str, Any], output: TextOutput
) -> Iterator[Chunk]:
    if request.system is not None:
        raise click.UsageError(
            "--system needs a chat template, and this text is continued as it is (see --chat)"
        )
    prompt = request.prompt or ""
    if request.beams is not None:
        chunks = _sought(llm, request.beams, prompt=prompt)
    else:
        chunks = (_whole(llm.generate) if request.is_ranked else llm.stream)(prompt, **sampling)
    if request.echo:
        output.write(prompt, dim=True)
    return chunks
