"""Threads that share an engine, iterators that are closed or forgotten, Ctrl-C, and forks."""

import gc
import os
import random
import threading
import time

import numpy as np
import pytest
from fake_executor import FakeExecutor, expected_logits

from torchless.engine.runner import Runner
from torchless.engine.sequence import Sequence
from torchless.engine.turns import Turns
from torchless.errors import TorchlessError
from torchless.results import Chunk, Completion, Timings, Usage
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

VOCAB = 50
PARAMS = SamplingParams(seed=3)


class IdReader:
    """Hands out token ids; no text."""

    def __init__(self, prompt, num_new, *, interrupted_at=None):
        self.ids, self.taken, self.interrupted_at = [], 0, interrupted_at
        self.sequence = Sequence(
            np.array(prompt, np.int32),
            max_tokens=len(prompt) + num_new,
            sampler=Sampler(PARAMS),
            accept=self.accept,
        )

    def accept(self, token):
        self.ids.append(token)
        if len(self.ids) == self.interrupted_at:
            raise KeyboardInterrupt

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


def test_pieces_join_to_the_whole():
    runner = Runner(FakeExecutor())
    chunks = list(runner.run(IdReader([1, 2], 12)))
    assert [token for chunk in chunks for token in chunk.token_ids] == alone([1, 2], 12)
    assert [bool(chunk.completion) for chunk in chunks] == [False] * 11 + [True]
    assert runner.engine.pages.num_free == 64


def test_threads_get_the_tokens_that_each_would_get_alone():
    """Eight threads start, pause and give up at random while few pages force preemption."""
    runner = Runner(FakeExecutor(num_pages=12, max_batch_tokens=24))
    failures = []

    def work(number):
        chance = random.Random(number)
        try:
            for i in range(4):
                prompt, num_new = prompt_of(chance.randint(1, 60), 10 * number + i), chance.randint(1, 40)
                if chance.random() < 0.3:
                    stream, expected = runner.run(IdReader(prompt, num_new)), alone(prompt, num_new)
                    got = next(stream).token_ids
                    assert list(got) == expected[: len(got)]
                    stream.close()
                    continue
                got = []
                for chunk in runner.run(IdReader(prompt, num_new)):
                    got += chunk.token_ids
                    if chance.random() < 0.05:
                        time.sleep(0.001)
                assert got == alone(prompt, num_new)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert runner.engine.pages.num_free == 12
    assert runner.engine.scheduler.is_idle


def test_sequences_of_different_threads_share_steps():
    executor = FakeExecutor()
    runner = Runner(executor)
    slow = runner.run(IdReader([1], 30))
    next(slow)
    reader = IdReader([2], 20)
    list(runner.run(reader))
    assert sum(len(batch.run_starts) == 3 for batch in executor.batches) >= 19
    assert [t for chunk in slow for t in chunk.token_ids] == alone([1], 30)[1:]


def test_closing_an_iterator_frees_its_pages_at_once():
    executor = FakeExecutor(num_pages=8)
    runner = Runner(executor)
    stream = runner.run(IdReader(prompt_of(100), 50))
    next(stream)
    assert runner.engine.pages.num_free == 4
    stream.close()
    assert runner.engine.pages.num_free == 8
    assert len(executor.released) == 4


def test_an_iterator_that_was_never_started_holds_nothing():
    runner = Runner(FakeExecutor())
    stream = runner.run(IdReader([1], 5))
    del stream
    assert runner.engine.scheduler.is_idle


def test_a_forgotten_iterator_collected_during_a_step_is_cancelled_after_it():
    executor = FakeExecutor(num_pages=8)
    runner = Runner(executor)
    forgotten = runner.run(IdReader([7], 50))
    next(forgotten)
    cycle = [forgotten]
    cycle.append(cycle)
    del forgotten, cycle
    step, kept = executor.step, runner.run(IdReader([1, 2], 10))

    def step_and_collect(batch):
        gc.collect()
        return step(batch)

    executor.step = step_and_collect
    assert [t for chunk in kept for t in chunk.token_ids] == alone([1, 2], 10)
    assert runner.engine.pages.num_free == 8 and runner.engine.scheduler.is_idle


@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_interrupt_frees_everything_and_the_runner_goes_on(step):
    executor = FakeExecutor(num_pages=8, max_batch_tokens=16)
    runner = Runner(executor)
    executor.fail_at = {step: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        list(runner.run(IdReader(prompt_of(30), 10)))
    assert runner.engine.pages.num_free == 8 and runner.engine.scheduler.is_idle
    assert list(runner.run(IdReader([4], 6)))[-1].completion.token_ids == tuple(alone([4], 6))


def test_an_error_of_one_caller_leaves_the_other_sequences_alone():
    executor = FakeExecutor(num_pages=8)
    runner = Runner(executor)
    other = runner.run(IdReader([5], 20))
    got = list(next(other).token_ids)
    executor.fail_at = {4: RuntimeError("broken")}
    with pytest.raises(RuntimeError, match="broken"):
        list(runner.run(IdReader([6], 20)))
    for chunk in other:
        got += chunk.token_ids
    assert got == alone([5], 20)
    assert runner.engine.pages.num_free == 8


def test_a_sequence_that_was_being_booked_when_another_caller_was_interrupted_ends_as_cancelled():
    runner = Runner(FakeExecutor(num_pages=8))
    half_booked = runner.run(IdReader([5], 20, interrupted_at=4))
    next(half_booked)
    caller = runner.run(IdReader([6], 20))
    with pytest.raises(KeyboardInterrupt):
        list(caller)
    completion = list(half_booked)[-1].completion
    assert completion.finish_reason == "cancelled"
    assert runner.engine.pages.num_free == 8 and runner.engine.scheduler.is_idle


def test_after_close_requests_fail_with_a_sentence():
    runner = Runner(FakeExecutor())
    under_way = runner.run(IdReader([5], 20))
    next(under_way)
    assert runner.close() is True
    assert runner.close() is False
    with pytest.raises(TorchlessError, match="closed"):
        list(under_way)
    with pytest.raises(TorchlessError, match="closed"):
        list(runner.run(IdReader([5], 20)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on():
    runner = Runner(FakeExecutor())
    stream = runner.run(IdReader([5], 20))
    next(stream)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            runner.check_usable()
        except TorchlessError:
            stream.close()  # must not wait for a lock that nobody will release
            code = 0 if runner.close() is False else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(list(stream)) == 19


def test_a_waiting_thread_gets_its_turn_before_the_holder_comes_back():
    turns, order, started = Turns(), [], threading.Event()

    def wait():
        started.set()
        turns.take(order.append, "waiting")

    def hold():
        thread.start()
        started.wait()
        time.sleep(0.05)

    thread = threading.Thread(target=wait)
    turns.take(hold)
    for _ in range(3):
        turns.take(order.append, "holder")
    thread.join()
    assert order.index("waiting") <= 1


def test_an_interrupt_while_waiting_for_a_turn_leaves_no_trace():
    turns = Turns()
    with pytest.raises(KeyboardInterrupt):
        turns.take(_raise, KeyboardInterrupt())
    assert turns.take(lambda: turns.take(lambda: 3)) == 3  # free, and its owner may come in again
    assert not turns._waiting


def _raise(error):
    raise error
