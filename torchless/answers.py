"""The answers to one request: one, or several that are written side by side."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

from torchless.errors import InvalidRequestError
from torchless.generation import Generation
from torchless.results import Completion
from torchless.sampling.parameters import MAX_SEED, SamplingParams

__all__ = ["Answers", "params_of_answers"]


class Answers:
    """The generations of one request, and how their completions become its result.

    Attributes:
        generations: one for each answer that is written.
    """

    def __init__(self, generations: SequenceOf[Generation], num_wanted: int) -> None:
        """Args: num_wanted: how many answers are returned, the best by the mean log probability of their tokens."""
        self.generations = tuple(generations)
        self._num_wanted = num_wanted

    def check_can_stream(self) -> None:
        """Refuses pieces of answers of which some will be dropped."""
        if self._num_wanted < len(self.generations):
            raise InvalidRequestError(
                f"the best {self._num_wanted} of {len(self.generations)} answers are known once all have ended: "
                f"best_of has no pieces to stream; leave it out, or wait for the whole answer"
            )

    def join(self, completions: Iterable[Completion]) -> Completion:
        """The request's result, from the completions of all generations in their order."""
        found = list(completions)
        if len(found) == 1:
            return found[0]
        if self._num_wanted < len(found):
            of_prompt = found[0].prompt_logprobs
            found.sort(key=_dislike)  # equal ones keep their order
            found = [replace(one, prompt_logprobs=None) for one in found[: self._num_wanted]]
            found[0] = replace(found[0], prompt_logprobs=of_prompt)
        return replace(found[0], others=tuple(found[1:]))


def _dislike(completion: Completion) -> float:
    assert completion.mean_logprob is not None, "answers among which the best is sought have one"
    return -completion.mean_logprob


def params_of_answers(params: SamplingParams) -> list[SamplingParams]:
    """Of each answer to a request: those of a request for it alone.

    The seeds are the request's own and those that follow it. The prompt's log probabilities are computed once.

    Example:
        >>> [answer.seed for answer in params_of_answers(SamplingParams(n=3, seed=7))]
        [7, 8, 9]
    """
    if params.seed is None:
        raise ValueError("parameters need a seed before they are those of several answers")
    one = replace(params, n=1, best_of=None)
    further = replace(one, prompt_logprobs=None)
    count = params.best_of or params.n
    return [one, *(replace(further, seed=(params.seed + i) & MAX_SEED) for i in range(1, count))]
