"""The sampler of one sequence: runs the steps that its parameters ask for, then picks a token.

Steps are the files in `steps/`, found by name. Each offers ``build(params, context)``, which returns the step or None
where the parameters leave it off, and either an `ORDER`, for what changes logits before all samplers, or the `NAME`
of a sampler, whose place `SamplingParams.samplers` decides. The order is llama.cpp's if the request names no other.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Collection
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from torchless.errors import TorchlessError
from torchless.sampling import steps
from torchless.sampling.candidates import LONG, Candidates, KeepLargest, Step, weights
from torchless.sampling.context import SamplerContext
from torchless.sampling.mirostat import Mirostat
from torchless.sampling.parameters import SamplingParams
from torchless.sampling.random_numbers import CounterRandom

__all__ = ["Sampler", "StepModule"]

_BLOCK = 512  # candidates that are summed together first, where there are many


class StepModule(Protocol):
    """What a file in `steps/` offers."""

    ORDER: int  # or NAME: str

    def build(self, params: SamplingParams, context: SamplerContext) -> Step | None: ...


class Sampler:
    """Picks tokens. The pick depends on seed, number of tokens so far, logits and history only.

    Example:
        >>> sampler = Sampler(SamplingParams(temperature=0, seed=1))
        >>> sampler.pick(np.float32([0.5, 2.0, 1.0]), np.int32([7]))
        1
    """

    def __init__(
        self,
        params: SamplingParams,
        eos_ids: Collection[int] = (),
        *,
        num_prompt_tokens: int = 0,
        token_text: Callable[[int], str] | None = None,
    ) -> None:
        """Sets the chain up.

        Args:
            params: with a seed (see `SamplingParams.seeded`) unless nothing is left to chance.
            eos_ids: the tokens that end a text.
            num_prompt_tokens: tokens of the history that are not the answer's.
            token_text: text of a token; the step `dry` looks for its sequence breakers there.
        """
        random = CounterRandom(params.seeded().seed or 0)
        context = SamplerContext(eos_ids, num_prompt_tokens, token_text, random)
        fixed, samplers = step_modules()
        modules = [*fixed, *(samplers[name] for name in _names(params))]
        built = (module.build(params, context) for module in modules)
        self._steps = [step for step in built if step is not None]
        self._random = None if params.temperature == 0 else random
        self._mirostat = Mirostat(params) if params.mirostat and self._random is not None else None

    @property
    def num_best(self) -> int | None:
        """How many of the largest logits `pick_best` needs; None where only `pick`, with all of them, will do."""
        if not self._steps:
            return 1 if self._random is None else None
        first = self._steps[0]
        return first.count if isinstance(first, KeepLargest) and self._mirostat is None else None

    def pick_best(
        self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32], history: npt.NDArray[np.int32]
    ) -> int:
        """What `pick` picks, from no more than the `num_best` largest logits and their ids, largest first.

        Of equal logits the lower id comes first, NaN before all.

        Raises:
            TorchlessError: the largest is NaN or infinite.
        """
        _check_peak(logits[0])
        if self._random is None:
            return int(ids[0])
        return self._narrow_and_pick(Candidates.of_best(ids, logits), history)

    def pick(self, logits: npt.NDArray[np.float32], history: npt.NDArray[np.int32]) -> int:
        """The next token after `history`.

        Args:
            logits: (vocab,), left as it is.
            history: all tokens so far, prompt first; its length is the position of the new token.

        Raises:
            TorchlessError: the logits contain NaN or infinity.
            InvalidRequestError: the request forbids every token.
        """
        if self._random is None and not self._steps:
            best = int(logits.argmax())
            _check_peak(logits[best])
            return best
        _check_peak(logits.max())
        candidates = Candidates(logits)
        return self._narrow_and_pick(candidates, history)

    def distribution(
        self, logits: npt.NDArray[np.float32], history: npt.NDArray[np.int32]
    ) -> dict[int, float]:
        """Token id -> probability, of the tokens that `pick` would pick from here (without Mirostat's bound)."""
        candidates = Candidates(logits)
        for step in self._steps:
            step(candidates, history)
        if self._random is None:
            return {candidates.token_id(int(candidates.logits.argmax())): 1.0}
        probabilities = candidates.probabilities().tolist()
        return {candidates.token_id(i): p for i, p in enumerate(probabilities) if p > 0}

    def _narrow_and_pick(self, candidates: Candidates, history: npt.NDArray[np.int32]) -> int:
        vocab_size = len(candidates)
        for step in self._steps:
            step(candidates, history)
        if self._random is None:
            return candidates.token_id(int(candidates.logits.argmax()))
        uniform = self._random.uniform(len(history))
        if self._mirostat is None:
            return candidates.token_id(_pick_random(candidates, uniform))
        self._mirostat.narrow(candidates, len(history), vocab_size)
        picked = _pick_random(candidates, uniform)
        self._mirostat.accept(float(candidates.probabilities()[picked]), len(history))
        return candidates.token_id(picked)


def _names(params: SamplingParams) -> tuple[str, ...]:
    """The samplers of a request in their order. Mirostat replaces all that choose among tokens by themselves."""
    if not params.mirostat:
        return params.samplers
    return tuple(name for name in params.samplers if name in ("penalties", "dry", "temperature"))


def _pick_random(candidates: Candidates, uniform: float) -> int:
    """Inverts the distribution function: the first candidate whose running sum exceeds uniform * total."""
    shares = weights(candidates.logits, candidates.peak)
    if len(shares) < LONG:
        return _first_above(shares, uniform)
    num_blocks = -(-len(shares) // _BLOCK)  # first the block in which it lies, then the place in that
    blocks = np.add.reduceat(shares, np.arange(num_blocks) * _BLOCK, dtype=np.float64)
    ends = blocks.cumsum()
    block = int(ends.searchsorted(uniform * ends[-1], side="right"))
    left = max(float(uniform * ends[-1] - (ends[block - 1] if block else 0.0)), 0.0)
    within = shares[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64)
    place = int(within.searchsorted(left, side="right"))
    if place == len(within):  # rounding: the last one that has a share
        place = int(within.searchsorted(within[-1]))
    return block * _BLOCK + place


def _first_above(shares: npt.NDArray[np.floating[Any]], uniform: float) -> int:
    sums = shares.cumsum(dtype=np.float64)
    # uniform <= 1 - 2**-53, so that the product is below the total and the index below the length.
    return int(sums.searchsorted(uniform * sums[-1], side="right"))


def _check_peak(peak: np.float32) -> None:
    if not math.isfinite(peak):
        raise TorchlessError(
            f"the model computed {peak} where a finite number was expected: its file is damaged, or its "
            f"numbers overflow on this backend; `torchless show` lists its tensors"
        )


@cache
def step_modules() -> tuple[tuple[StepModule, ...], dict[str, StepModule]]:
    """The files whose place is fixed, in their order, and the samplers by name."""
    names = (module.name for module in pkgutil.iter_modules(steps.__path__))
    modules = [import_module(f"{steps.__name__}.{name}") for name in names]
    fixed = sorted(
        (module for module in modules if hasattr(module, "ORDER")), key=lambda module: module.ORDER
    )
    return tuple(fixed), {module.NAME: module for module in modules if hasattr(module, "NAME")}
