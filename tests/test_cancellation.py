"""A prompt of eight thousand tokens in one step of the real core: cancelled in its middle, and beside other threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import torchless

pytest.importorskip("torchless._core")

NUM_TOKENS = 8000


def prompt(seed):
    return np.random.default_rng(seed).integers(300, 1000, NUM_TOKENS).tolist()


@pytest.fixture(scope="module")
def model():
    options = {"ctx": NUM_TOKENS + 64, "batch_tokens": NUM_TOKENS, "threads": 2}
    with torchless.load(**options, prefix_cache=False) as model:
        yield model


@pytest.fixture(scope="module")
def step_seconds(model):
    """How long such a prompt takes to its end."""
    start = time.perf_counter()
    model.generate(prompt(1), max_tokens=1, seed=1)
    seconds = time.perf_counter() - start
    if seconds < 0.3:
        pytest.skip("this machine is too fast to be interrupted in the middle")
    return seconds


def wait_for_step(model):
    """Returns in the middle of a step."""
    while not model._runner.engine.scheduler.running:
        time.sleep(0.0005)
    time.sleep(0.02)


def test_cancelling_a_long_prompt_gives_its_pages_back_before_its_step_would_have_ended(model, step_seconds):
    delays = []
    for seed in range(2, 5):
        num_steps = model.metrics().num_steps
        future = model.submit(prompt(seed), max_tokens=1, seed=1)
        wait_for_step(model)
        start = time.perf_counter()
        assert future.cancel()
        in_use = model._runner.call(lambda engine: engine.pages.num_pages - engine.pages.num_free)
        delays.append(time.perf_counter() - start)
        assert in_use == 0 and model.info["memory_bytes"]["kv_used"] == 0
        assert model.metrics().num_steps == num_steps, "the step was given up"
    assert min(delays) < max(0.2, step_seconds / 4), (delays, step_seconds)


def test_a_prompt_that_was_given_up_leaves_no_trace_in_later_answers(model, step_seconds):
    expected = model.generate(prompt(1)[:300], max_tokens=3, seed=1, logits_hash=True)
    future = model.submit(prompt(5), max_tokens=1)
    wait_for_step(model)
    future.cancel()
    again = model.generate(prompt(1)[:300], max_tokens=3, seed=1, logits_hash=True)
    assert (again.token_ids, again.logits_hash) == (expected.token_ids, expected.logits_hash)


def test_other_python_threads_go_on_during_a_step(model, step_seconds):
    """The GIL is free: a thread that sleeps a millisecond at a time is not held up for a step."""
    future = model.submit(prompt(6), max_tokens=1, seed=1)
    wait_for_step(model)
    num_steps = model.metrics().num_steps
    for _ in range(20):
        time.sleep(0.001)
    assert model.metrics().num_steps == num_steps, "it was one step all the while"
    future.cancel()


def test_closing_a_model_in_the_middle_of_a_step_does_not_wait_for_its_end(step_seconds):
    model = torchless.load(ctx=NUM_TOKENS + 64, batch_tokens=NUM_TOKENS, threads=2)
    future = model.submit(prompt(7), max_tokens=1, seed=1)
    wait_for_step(model)
    start = time.perf_counter()
    model.close()
    assert time.perf_counter() - start < max(0.2, step_seconds / 2)
    with pytest.raises(torchless.TorchlessError, match="closed"):
        future.result()


def test_two_threads_cannot_be_in_one_step(model, step_seconds):
    """Whoever calls the core directly hears so, instead of overwriting the other's memory."""
    executor = model._loaded.executor
    future = model.submit(prompt(8), max_tokens=1, seed=1)
    wait_for_step(model)
    batch = []
    thread = threading.Thread(target=lambda: batch.append(_error_of(executor)))
    thread.start()
    thread.join()
    future.cancel()
    assert "one step at a time" in batch[0]


def _error_of(executor):
    from torchless.backends.base import Batch

    one = np.zeros(1, np.int32)
    starts = np.array([0, 1], np.int32)
    try:
        executor.step(Batch(one, one, starts, one, starts, one))
    except RuntimeError as error:
        return str(error)
    return "no error"
