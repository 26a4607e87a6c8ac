"""Options about the answer to one prompt: how many are written, and what is told of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torchless.cli.logprobs import LOGPROB_OPTIONS
from torchless.cli.options import Option
from torchless.cli.sampling_options import named_by_flags
from torchless.cli.terminal import TextOutput

if TYPE_CHECKING:
    from torchless.results import Chunk, Completion

__all__ = ["ANSWER_OPTIONS", "answer_keywords", "chunks_of_choices", "write_answers"]

_HEADING = "Several answers"

ANSWER_OPTIONS = (
    Option(
        "--answers",
        "n",
        type=int,
        metavar="N",
        heading=_HEADING,
        aliases=("--num-return-sequences",),
        help="Write so many answers to the prompt side by side, with seeds that follow --seed. [1]",
    ),
    Option(
        "--best-of",
        type=int,
        metavar="N",
        heading=_HEADING,
        help="Write so many and print the likeliest, or as many of them as --answers says.",
    ),
    *LOGPROB_OPTIONS,
)


def answer_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `ANSWER_OPTIONS` gave out of `values`; returns the keywords for a request, checked.

    Raises:
        InvalidRequestError: a value out of range. Checked before a model is loaded.
    """
    from torchless.sampling.parameters import SamplingParams

    given = {str(option.name): values.pop(str(option.name)) for option in ANSWER_OPTIONS}
    keywords = {name: value for name, value in given.items() if value is not None}
    with named_by_flags(ANSWER_OPTIONS):
        SamplingParams.from_kwargs(**keywords)
    return keywords


def chunks_of_choices(completion: Completion) -> Iterator[Chunk]:
    """Answers that are complete, each as one piece."""
    from torchless.results import Chunk

    for i, choice in enumerate(completion.choices):
        yield Chunk(choice.text, choice.token_ids, choice.finish_reason, choice, choice.logprobs, i)


def write_answers(chunks: Iterable[Chunk], output: TextOutput, num_answers: int) -> list[Completion]:
    """Writes one answer after another, as the pieces of the first that is not through yet come.

    Several get a line with their number in front.

    Returns:
        Their completions, in order.
    """
    held: list[list[str]] = [[] for _ in range(num_answers)]
    done: dict[int, Completion] = {}
    current = -1  # before the first piece
    for chunk in chunks:
        held[chunk.index].append(chunk.text)
        if chunk.completion is not None:
            done[chunk.index] = chunk.completion
        if current < 0:
            current = 0
            _begin(output, current, num_answers)
        _let_out(output, held[current])
        while current in done and current + 1 < num_answers:
            current += 1
            _begin(output, current, num_answers)
            _let_out(output, held[current])
    return [done[i] for i in range(num_answers)]


def _let_out(output: TextOutput, pieces: list[str]) -> None:
    output.write("".join(pieces))
    pieces.clear()


def _begin(output: TextOutput, index: int, num_answers: int) -> None:
    if num_answers > 1:
        output.finish_line()
        output.write(f"--- answer {index + 1} of {num_answers} ---\n", dim=True)
