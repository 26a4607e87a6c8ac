"""Sequences for tests of an engine without a model, and what each of them must give."""

import numpy as np
from fake_executor import expected_logits

from torchless.engine.fast_tokens import FEWEST_FAST_TOKENS
from torchless.engine.sequence import Sequence
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50


def computed(prompt, fast):
    """The tokens of a prompt as the fake executor keeps them: other ones where they are computed in fast arithmetic."""
    return [token + VOCAB if fast and len(prompt) >= FEWEST_FAST_TOKENS else token for token in prompt]


def alone(prompt, num_new, params, fast=False):
    """The tokens that follow `prompt`, from the definition: no batch, no pages, no chunks."""
    sampler, tokens, kept = Sampler(params), list(prompt), computed(prompt, fast)
    for _ in range(num_new):
        tokens.append(sampler.pick(expected_logits(kept, VOCAB), np.array(tokens, np.int32)))
        kept.append(tokens[-1])
    return tokens[len(prompt) :]


def make(prompt, num_new, params=None, **options):
    params = params or SamplingParams(seed=3)
    return Sequence(
        np.array(prompt, np.int32), max_tokens=len(prompt) + num_new, sampler=Sampler(params), **options
    )


def scoring(prompt):
    logits = np.full((len(prompt), VOCAB), np.nan, np.float32)
    return Sequence(np.array(prompt, np.int32), max_tokens=len(prompt), logits=logits)


def new_tokens(sequence):
    return sequence.history[sequence.num_prompt_tokens :].tolist()


def finish(engine, *sequences, limit=10_000):
    for _ in range(limit):
        if all(s.finish_reason for s in sequences):
            return
        engine.step()
    raise AssertionError("the engine does not finish")


def prompt_of(length, seed=0):
    return np.random.default_rng((seed, length)).integers(0, VOCAB, length).tolist()
