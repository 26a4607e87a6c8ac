"""Readers without text for tests of whoever runs sequences, and what such a sequence gives alone."""

import numpy as np
from fake_executor import expected_logits

from torchless.engine.sequence import Sequence
from torchless.results import Chunk, Completion, Timings, Usage
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50
PARAMS = SamplingParams(seed=3)


class IdReader:
    """Hands out token ids; no text."""

    def __init__(self, prompt, num_new, *, fails_at=None):
        self.ids, self.taken, self.fails_at = [], 0, fails_at
        self.sequence = Sequence(
            np.array(prompt, np.int32),
            max_tokens=len(prompt) + num_new,
            sampler=Sampler(PARAMS),
            accept=self.accept,
        )

    def accept(self, token):
        self.ids.append(token)
        if len(self.ids) == self.fails_at:
            raise RuntimeError("broken reader")

    @property
    def has_news(self):
        return len(self.ids) > self.taken or self.sequence.finish_reason is not None

    def take(self):
        if not self.has_news:
            return None
        new, self.taken = tuple(self.ids[self.taken :]), len(self.ids)
        reason = self.sequence.finish_reason
        usage, timings = Usage(1, len(self.ids)), Timings(0, 0, 0, 0, 0)
        done = Completion("", tuple(self.ids), reason, usage, timings, PARAMS) if reason else None
        return Chunk("", new, reason, done)


def alone(prompt, num_new):
    sampler, tokens = Sampler(PARAMS), list(prompt)
    for _ in range(num_new):
        tokens.append(sampler.pick(expected_logits(tokens, VOCAB), np.array(tokens, np.int32)))
    return tokens[len(prompt) :]


def prompt_of(length, seed=0):
    return np.random.default_rng((seed, length)).integers(0, VOCAB, length).tolist()


def look(runner):
    """What is free and whether nothing is left, as it is between two steps."""
    return runner.call(lambda engine: (engine.pages.num_free, engine.scheduler.is_idle))
