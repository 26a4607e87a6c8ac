"""Futures, coroutines and asynchronous iterators of a model, and requests with options of their own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time

import pytest
from test_llm import executor_of, make

import torchless
from torchless import Request
from torchless.errors import ContextLengthError, InvalidRequestError, TorchlessError

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def rest(model):
    """Waits until the engine has obeyed; says whether nothing is left."""
    return model._runner.call(
        lambda engine: engine.scheduler.is_idle and engine.pages.num_free == engine.pages.num_pages
    )


def slow(model, step, seconds=60.0):
    """Makes a step take so long unless it is interrupted."""
    executor_of(model).waits[step] = seconds
    return model


def reached(model, step):
    """Waits until a step has begun."""
    while len(executor_of(model).batches) < step:
        time.sleep(0.001)


@pytest.fixture
def model():
    with make(template=TEMPLATE) as model:
        yield model


def expected(model, prompt="abc", **options):
    return model.generate(prompt, **{"seed": 5, "ignore_eos": True, "max_tokens": 12, **options}).token_ids


# -- futures --------------------------------------------------------------------------------------


def test_a_future_has_the_answer_of_generate(model):
    future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=12)
    assert isinstance(future, concurrent.futures.Future) and isinstance(future, torchless.Future)
    assert future.result(10).token_ids == expected(model)
    assert future.done() and not future.running() and not future.cancelled()
    assert future.cancel() is False and future.exception() is None


def test_a_future_runs_while_nobody_waits():
    with make() as model:
        future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=12)
        deadline = time.perf_counter() + 10
        while not future.done() and time.perf_counter() < deadline:
            time.sleep(0.001)
        assert future.done()


def test_futures_work_with_the_standard_library(model):
    futures = [model.submit("abc", seed=seed, ignore_eos=True, max_tokens=12) for seed in range(5)]
    done = {id(f): f.result().token_ids for f in concurrent.futures.as_completed(futures, timeout=10)}
    assert [done[id(future)] for future in futures] == [expected(model, seed=seed) for seed in range(5)]
    assert concurrent.futures.wait(futures, timeout=1).not_done == set()


def test_callbacks_are_called_once_with_the_future(model):
    called, event = [], threading.Event()
    future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=3)
    future.add_done_callback(lambda done: (called.append(done), event.set()))
    assert event.wait(10) and called == [future]


def test_iterating_gives_every_piece_for_every_iteration():
    with slow(make(), 4, 0.05) as model:
        future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=12)
        first = [token for chunk in future for token in chunk.token_ids]
        assert first == list(future.result().token_ids) == list(expected(model))
        assert [token for chunk in future for token in chunk.token_ids] == first


def test_pieces_come_before_the_end():
    with slow(make(), 8) as model:
        future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=12)
        assert next(iter(future)).token_ids
        assert not future.done() and future.running()


def test_a_result_that_takes_too_long_is_a_timeout_and_work_goes_on():
    with slow(make(), 3, 0.3) as model:
        future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=5)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0.01)
        assert len(future.result(10).token_ids) == 5


@pytest.mark.parametrize("step", [1, 4])
def test_cancelling_a_future_ends_its_step_and_frees_its_pages(step):
    with slow(make(), step) as model:
        future = model.submit("abc", seed=5, ignore_eos=True, max_tokens=30)
        reached(model, step)
        called = []
        future.add_done_callback(called.append)
        start = time.perf_counter()
        assert future.cancel() is True and future.cancel() is True
        assert future.cancelled() and future.done() and called == [future]
        assert rest(model) and time.perf_counter() - start < 5
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        with pytest.raises(concurrent.futures.CancelledError):
            list(future)
        assert concurrent.futures.wait([future], timeout=1).not_done == set()


def test_who_waits_for_a_future_hears_that_it_was_cancelled():
    with slow(make(), 2) as model:
        future = model.submit("abc", ignore_eos=True, max_tokens=30)
        timer = threading.Timer(0.05, future.cancel)
        timer.start()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(10)


def test_a_future_fails_when_the_model_is_closed():
    model = slow(make(), 2)
    future = model.submit("abc", ignore_eos=True, max_tokens=30)
    reached(model, 2)
    model.close()
    with pytest.raises(TorchlessError, match="closed"):
        future.result(10)


def test_waiting_inside_a_callback_is_refused_not_deadlocked(model):
    said, event = [], threading.Event()
    other = model.submit("abcd", seed=1, ignore_eos=True, max_tokens=400)

    def wait_for_another(future):
        try:
            other.result()
        except TorchlessError as error:
            said.append(str(error))
        event.set()

    model.submit("abc", ignore_eos=True, max_tokens=1).add_done_callback(wait_for_another)
    assert event.wait(10) and "callback" in said[0]


# -- requests -------------------------------------------------------------------------------------


def test_a_batch_takes_requests_with_parameters_of_their_own(model):
    requests = [
        Request("abc", seed=5, ignore_eos=True, max_tokens=4),
        Request("abc", seed=6),
        "abc",
        Request("abc", params=torchless.SamplingParams(seed=7, ignore_eos=True, max_tokens=3)),
        Request(messages=[{"role": "user", "content": "abc"}], seed=5, logits_hash=True),
    ]
    answers = model.batch(requests, ignore_eos=True, max_tokens=12, seed=9)
    wanted = [
        expected(model, ignore_eos=True, max_tokens=4),
        expected(model, seed=6),
        expected(model, seed=9),
    ]
    wanted.append(expected(model, seed=7, ignore_eos=True, max_tokens=3))
    assert [answer.token_ids for answer in answers[:4]] == wanted
    said = model.chat([{"role": "user", "content": "abc"}], seed=5, ignore_eos=True, max_tokens=12)
    assert answers[4].token_ids == said.token_ids
    assert [bool(answer.logits_hash) for answer in answers] == [False] * 4 + [True]


def test_submit_takes_a_request(model):
    assert model.submit(Request("abc", seed=5, ignore_eos=True, max_tokens=12)).result(
        10
    ).token_ids == expected(model)
    with pytest.raises(TypeError, match="own options"):
        model.submit(Request("abc"), ignore_eos=True, max_tokens=3)


def test_requests_say_what_is_wrong_with_them(model):
    for options in ({}, {"prompt": "a", "messages": []}, {"prompt": "a", "prefix": "b", "suffix": "c"}):
        with pytest.raises(InvalidRequestError, match="a prompt, or messages, or prefix"):
            Request(**options)
    with pytest.raises(InvalidRequestError, match="both prefix and suffix"):
        Request(prefix="a")
    with pytest.raises(InvalidRequestError, match="order"):
        Request("a", order="psm")
    with pytest.raises(InvalidRequestError, match="template"):
        Request(messages=[], parse_special=True)
    with pytest.raises(TypeError, match="temperature"):
        model.submit(Request("a", temprature=1))


# -- coroutines -----------------------------------------------------------------------------------


def test_coroutines_give_the_answers_of_the_methods_that_wait(model):
    messages = [{"role": "user", "content": "abc"}]

    async def ask():
        one = model.agenerate("abc", seed=5, ignore_eos=True, max_tokens=12)
        two = model.achat(messages, seed=5, ignore_eos=True, max_tokens=12)
        several = [model.agenerate("abc", seed=seed, ignore_eos=True, max_tokens=12) for seed in range(8)]
        return await asyncio.gather(one, two, *several)

    one, two, *several = (answer.token_ids for answer in asyncio.run(ask()))
    assert one == expected(model)
    assert two == model.chat(messages, seed=5, ignore_eos=True, max_tokens=12).token_ids
    assert several == [expected(model, seed=seed) for seed in range(8)]


def test_asynchronous_pieces_join_to_the_whole(model):
    async def ask(chunks):
        return [chunk async for chunk in chunks]

    messages = [{"role": "user", "content": "abc"}]
    chunks = asyncio.run(ask(model.astream("abc", seed=5, ignore_eos=True, max_tokens=12)))
    assert [token for chunk in chunks for token in chunk.token_ids] == list(expected(model))
    assert [chunk.completion is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    chunks = asyncio.run(ask(model.astream_chat(messages, seed=5, ignore_eos=True, max_tokens=12)))
    assert (
        chunks[-1].completion.token_ids
        == model.chat(messages, seed=5, ignore_eos=True, max_tokens=12).token_ids
    )


def test_asynchronous_gaps_are_refused_by_a_model_without_them(model):
    async def ask():
        with pytest.raises(torchless.UnsupportedError):
            await model.ainfill("a", "b")
        with pytest.raises(torchless.UnsupportedError):
            model.astream_infill("a", "b")

    asyncio.run(ask())


def test_arguments_are_checked_before_the_first_piece(model):
    with pytest.raises(TypeError):
        model.astream("abc", temprature=1)
    with pytest.raises(ContextLengthError):
        model.submit("a" * 5000)


def test_a_future_can_be_awaited(model):
    async def ask():
        return await model.submit("abc", seed=5, ignore_eos=True, max_tokens=12)

    assert asyncio.run(ask()).token_ids == expected(model)


def test_the_loop_goes_on_while_a_step_computes():
    with slow(make(), 2, 0.3) as model:

        async def ask():
            task = asyncio.create_task(model.agenerate("abc", ignore_eos=True, max_tokens=5))
            ticks = 0
            while not task.done():
                await asyncio.sleep(0.005)
                ticks += 1
            return ticks

        assert asyncio.run(ask()) > 20


@pytest.mark.parametrize("step", [1, 4])
def test_cancelling_a_task_ends_its_step_and_frees_its_pages(step):
    with slow(make(), step) as model:

        async def ask():
            task = asyncio.create_task(model.agenerate("abc", ignore_eos=True, max_tokens=30))
            await asyncio.to_thread(reached, model, step)
            start = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(rest, model)
            return time.perf_counter() - start

        assert asyncio.run(ask()) < 5


def test_a_timeout_around_a_coroutine_cancels_the_request():
    with slow(make(), 2) as model:

        async def ask():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.agenerate("abc", ignore_eos=True, max_tokens=30), 0.05)

        asyncio.run(ask())
        assert rest(model)


@pytest.mark.parametrize("way", ["aclose", "break", "cancel"])
def test_leaving_an_asynchronous_iterator_frees_its_pages(way):
    with slow(make(), 6) as model:

        async def ask():
            chunks = model.astream("abc", ignore_eos=True, max_tokens=30)
            if way == "cancel":

                async def read():
                    async for _ in chunks:
                        pass

                task = asyncio.create_task(read())
                await asyncio.to_thread(reached, model, 6)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async for _ in chunks:
                    break
                await asyncio.to_thread(reached, model, 6)
                if way == "aclose":
                    await chunks.aclose()
                del chunks
                gc.collect()
                await asyncio.sleep(0.05)  # the loop closes what was collected, a few turns later
            return await asyncio.to_thread(rest, model)

        assert asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_harms_nobody():
    with slow(make(), 3, 0.2) as model:
        loop = asyncio.new_event_loop()
        chunks = model.astream("abc", ignore_eos=True, max_tokens=100)
        loop.run_until_complete(anext(chunks))
        loop.close()
        assert len(model.generate("abc", ignore_eos=True, max_tokens=5).token_ids) == 5
        assert rest(model)
        del chunks


def test_who_waits_for_the_result_is_not_disturbed_by_pieces_that_come_before():
    with slow(make(says="hello world", after=4), 3, 0.3) as model:
        future = model.submit("abc", temperature=0, ignore_eos=True, max_tokens=11)
        got = []
        waiter = threading.Thread(target=lambda: got.append(future.result(30)))
        waiter.start()
        assert "".join(chunk.text for chunk in future) == "hello world"
        waiter.join(10)
        assert got == [future.result()]
