"""Threads that share an engine through its driver: iterators that are closed or forgotten, errors, Ctrl-C, forks."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from fake_executor import FakeExecutor
from id_reader import IdReader, alone, look, prompt_of

from torchless.engine.driver import Driver, Ticket
from torchless.engine.engine import Engine
from torchless.engine.runner import Runner
from torchless.errors import TorchlessError


@pytest.fixture
def make():
    """Makes runners, and closes them in the end."""
    made = []

    def make_runner(executor):
        made.append(Runner(Engine(executor)))
        return made[-1]

    yield make_runner
    for runner in made:
        runner.close()


def test_pieces_join_to_the_whole(make):
    runner = make(FakeExecutor())
    chunks = list(runner.run(IdReader([1, 2], 12)))
    assert [token for chunk in chunks for token in chunk.token_ids] == alone([1, 2], 12)
    assert [bool(chunk.completion) for chunk in chunks] == [False] * 11 + [True]
    assert look(runner) == (64, True)


def test_the_whole_answer_comes_at_once(make):
    runner = make(FakeExecutor())
    assert runner.finish(IdReader([1, 2], 12)).token_ids == tuple(alone([1, 2], 12))


def test_threads_get_the_tokens_that_each_would_get_alone(make):
    """Eight threads start, pause and give up at random while few pages force preemption."""
    runner = make(FakeExecutor(num_pages=12, max_batch_tokens=24))
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
    assert look(runner) == (12, True)


def test_sequences_of_different_threads_share_steps(make):
    executor = FakeExecutor()
    runner = make(executor)
    executor.waits = {1: 0.2}  # long enough for the second to arrive
    slow = runner.run(IdReader([1], 30))
    thread = threading.Thread(target=lambda: list(slow))
    thread.start()
    list(runner.run(IdReader([2], 20)))
    thread.join(10)
    assert sum(len(batch.run_starts) == 3 for batch in executor.batches) >= 19


def test_closing_an_iterator_frees_its_pages(make):
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {10: 60.0}
    stream = runner.run(IdReader(prompt_of(100), 50))
    next(stream)
    stream.close()
    assert look(runner) == (8, True)
    kept = runner.call(lambda engine: set(engine.scheduler.prefix_cache.kept_ids))
    assert len(kept) == 3 and executor.released, (
        "full pages stay for prompts that begin alike, the last one does not"
    )
    assert not kept & set(executor.released)


def test_cancelling_breaks_off_the_step_of_a_long_prompt(make):
    """A step that would take a minute, and nobody else waits for it."""
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {2: 60.0}
    reader = IdReader(prompt_of(100), 50)
    ticket = Ticket(reader.sequence, lambda news: None, reader=reader)
    runner.submit(ticket)
    while len(executor.batches) < 2:
        time.sleep(0.001)
    start = time.perf_counter()
    runner.retire(ticket)
    assert look(runner) == (8, True)
    assert time.perf_counter() - start < 5
    assert executor.num_interruptions == 1
    assert runner.finish(IdReader([4], 6)).token_ids == tuple(alone([4], 6))


def test_cancelling_does_not_break_off_what_others_wait_for(make):
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {1: 0.2, 3: 0.3}
    reader, got = IdReader(prompt_of(20), 50), []
    ticket = Ticket(reader.sequence, lambda news: None, reader=reader)
    runner.submit(ticket)
    thread = threading.Thread(target=lambda: got.append(runner.finish(IdReader([5], 20)).token_ids))
    thread.start()
    while len(executor.batches) < 3:
        time.sleep(0.001)
    runner.retire(ticket)
    thread.join(10)
    assert got == [tuple(alone([5], 20))]
    assert executor.num_interruptions == 0


def test_what_comes_after_the_end_is_refused_and_not_forgotten():
    """A thread that was about to submit when another closed: its command is behind the one that ends the driver."""
    driver, told = Driver(Engine(FakeExecutor())), []
    ticket = Ticket(IdReader([1], 3).sequence, told.append)

    def end(driver):
        driver.end()
        driver.box.put(lambda driver: driver.add(ticket))

    driver.box.put(end)
    driver.work(lambda driver: None)
    driver.refuse_rest()  # what `Runner` does behind each command
    assert not driver.tickets
    assert len(told) == 1 and isinstance(told[0], TorchlessError)


def test_a_late_interruption_changes_no_answer(make):
    """Interrupting a step that somebody waits for costs time and nothing else."""
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {3: 30.0, 5: 30.0}
    stopped = threading.Event()

    def disturb():
        while not stopped.wait(0.01):
            executor.set_interrupted(True)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert runner.finish(IdReader(prompt_of(40), 20)).token_ids == tuple(alone(prompt_of(40), 20))
    finally:
        stopped.set()
        thread.join()
    assert executor.num_interruptions >= 2


def test_an_iterator_that_was_never_started_holds_nothing(make):
    runner = make(FakeExecutor())
    stream = runner.run(IdReader([1], 5))
    del stream
    assert look(runner) == (64, True)


def test_a_forgotten_iterator_collected_during_a_step_is_cancelled_after_it(make):
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    step, armed = executor.step, threading.Event()

    def step_and_collect(batch):
        if armed.is_set():
            gc.collect()
        return step(batch)

    executor.step = step_and_collect
    forgotten = runner.run(IdReader([7], 200))
    next(forgotten)
    cycle = [forgotten]
    cycle.append(cycle)
    del forgotten, cycle
    armed.set()
    assert [t for chunk in runner.run(IdReader([1, 2], 10)) for t in chunk.token_ids] == alone([1, 2], 10)
    assert look(runner) == (8, True)


def test_an_error_of_a_step_reaches_all_that_took_part_and_the_runner_goes_on(make):
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {1: 0.2}
    executor.fail_at = {4: RuntimeError("broken")}
    errors = []

    def wait_for(prompt):
        with pytest.raises(RuntimeError, match="broken") as caught:
            list(runner.run(IdReader(prompt, 20)))
        errors.append(caught.value)

    threads = [threading.Thread(target=wait_for, args=([i],)) for i in (5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 2
    assert look(runner) == (8, True)
    assert runner.finish(IdReader([4], 6)).token_ids == tuple(alone([4], 6))


@pytest.mark.parametrize("num_new", [2, 20])
def test_an_error_of_one_reader_leaves_the_other_sequences_alone(make, num_new):
    """Also one that ended in the very step that broke off."""
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {1: 0.2}
    got = []
    thread = threading.Thread(target=lambda: got.append(runner.finish(IdReader([5], num_new + 1)).token_ids))
    thread.start()
    while not executor.batches:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="broken reader"):
        runner.finish(IdReader([6], 20, fails_at=num_new))
    thread.join(10)
    assert got == [tuple(alone([5], num_new + 1))]
    assert look(runner) == (8, True)


def test_a_sequence_that_cannot_be_taken_in_fails_alone(make):
    runner = make(FakeExecutor(num_pages=2))
    with pytest.raises(ValueError, match="pages"):
        runner.finish(IdReader([5], 2000))
    assert runner.finish(IdReader([4], 6)).token_ids == tuple(alone([4], 6))


def test_after_close_requests_fail_with_a_sentence():
    executor = FakeExecutor()
    runner = Runner(Engine(executor))
    executor.waits = {5: 60.0}
    under_way = runner.run(IdReader([5], 20))
    next(under_way)
    assert runner.close() is True
    assert runner.close() is False
    with pytest.raises(TorchlessError, match="closed"):
        list(under_way)
    with pytest.raises(TorchlessError, match="closed"):
        list(runner.run(IdReader([5], 20)))


def test_nobody_waits_for_ever_while_another_thread_closes():
    """Requests that arrive at any moment of a close end: with their answer or with the sentence."""
    for attempt in range(30):
        runner = Runner(Engine(FakeExecutor()))
        outcomes = []

        def ask(runner=runner, outcomes=outcomes):
            try:
                while True:
                    outcomes.append(runner.finish(IdReader([5], 3)).token_ids)
            except TorchlessError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.001 * (attempt % 5))
        runner.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert sum("closed" in outcome for outcome in outcomes if isinstance(outcome, str)) == 4


def test_the_driver_starts_with_the_first_request_and_ends_with_close():
    runner = Runner(Engine(FakeExecutor()))
    assert drivers() == 0
    runner.finish(IdReader([1], 2))
    assert drivers() == 1
    runner.close()
    assert drivers() == 0


def test_a_forgotten_runner_is_collected_with_its_driver():
    executor = FakeExecutor()
    runner = Runner(Engine(executor))
    runner.finish(IdReader([1], 2))
    gone = weakref.ref(runner)
    del runner
    gc.collect()
    assert gone() is None
    deadline = time.perf_counter() + 5
    while drivers() and time.perf_counter() < deadline:
        time.sleep(0.001)
    assert drivers() == 0


def drivers():
    return sum(thread.name == "torchless-driver" for thread in threading.enumerate())


def test_an_idle_driver_uses_no_time(make):
    runner = make(FakeExecutor())
    runner.finish(IdReader([1], 2))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.03


def test_a_callback_that_would_wait_for_its_own_thread_is_refused(make):
    runner, said = make(FakeExecutor()), []

    def ask_again(news):
        with pytest.raises(TorchlessError, match="its own thread"):
            runner.finish(IdReader([1], 2))
        said.append(look(runner)[1])  # `call` works there

    reader, done = IdReader([3], 2), threading.Event()
    runner.submit(Ticket(reader.sequence, lambda news: (ask_again(news), done.set()), reader=reader))
    assert done.wait(10)
    assert said == [True]


def test_an_error_of_a_callback_harms_nobody(make, caplog):
    runner = make(FakeExecutor())
    reader = IdReader([3], 2)
    runner.submit(Ticket(reader.sequence, lambda news: 1 / 0, reader=reader))
    assert runner.finish(IdReader([4], 6)).token_ids == tuple(alone([4], 6))
    assert "callback" in caplog.text


def test_call_runs_between_steps_and_raises_what_it_raised(make):
    runner = make(FakeExecutor())
    assert runner.call(lambda engine: engine.pages.num_pages) == 64
    with pytest.raises(ZeroDivisionError):
        runner.call(lambda engine: 1 / 0)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_ctrl_c_reaches_who_waits_at_once_and_frees_everything(make):
    executor = FakeExecutor(num_pages=8)
    runner = make(executor)
    executor.waits = {3: 60.0}

    def interrupt():
        while len(executor.batches) < 3:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        runner.finish(IdReader(prompt_of(60), 10))
    thread.join()
    assert time.perf_counter() - start < 10
    assert look(runner) == (8, True)
    assert runner.finish(IdReader([4], 6)).token_ids == tuple(alone([4], 6))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(make):
    executor = FakeExecutor()
    runner = make(executor)
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
    assert [t for chunk in stream for t in chunk.token_ids] == alone([5], 20)[1:]


EXITS = """
import os, sys
sys.path[:0] = sys.argv[1:]
from fake_executor import FakeExecutor
from id_reader import IdReader
from torchless.engine.driver import Driver, Ticket
from torchless.engine.engine import Engine
from torchless.engine.runner import Runner
executor = FakeExecutor()
runner = Runner(Engine(executor))
executor.waits = {3: 60.0}
reader = IdReader([1], 20)
runner.submit(Ticket(reader.sequence, lambda news: None, reader=reader))
if hasattr(os, "fork") and os.fork() == 0:
    sys.exit(0)
while len(executor.batches) < 3:
    pass
"""


def test_a_process_that_ends_with_work_under_way_ends_at_once():
    """Also a fork of it, which has no driver."""
    tests = Path(__file__).parent.parent
    paths = [str(tests), str(tests.parent)]
    command = [sys.executable, "-W", "ignore", "-c", EXITS, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
