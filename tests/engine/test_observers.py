"""What listens to an engine: counts that agree with what was asked for, and a trace that other tools open."""

from __future__ import annotations

import io
import json
import random
import threading
import time

import pytest
from fake_executor import FakeExecutor
from id_reader import IdReader, look, prompt_of

from torchless.engine.driver import Ticket
from torchless.engine.engine import Engine, StepResult
from torchless.engine.metering import Meter
from torchless.engine.observer import StepTimes
from torchless.engine.runner import Runner
from torchless.engine.tracing import Tracer


@pytest.fixture
def observed():
    """A runner with few pages, its meter, and the text of its trace."""
    executor = FakeExecutor(num_pages=6, max_batch_tokens=24)
    runner, meter, text = Runner(Engine(executor)), Meter(), io.StringIO()
    tracer = Tracer(text, 'torchless "x"')
    runner.engine.observers += [meter, tracer]
    yield runner, meter, tracer, text
    runner.close()


def work(runner, count=6, num_new=40):
    """So many requests at once, that take each other's pages."""
    runner.engine.executor.waits[1] = 0.2
    threads = [
        threading.Thread(target=runner.finish, args=(IdReader(prompt_of(30 + i, i), num_new),))
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def events(text):
    found = json.loads(text if text.rstrip().endswith("]") else text + "]")
    assert isinstance(found, list)
    return found


# -- counts ---------------------------------------------------------------------------------------


def test_counts_agree_with_what_was_asked_for(observed):
    runner, meter, _, _ = observed
    work(runner)
    metrics = meter.metrics(runner.engine)
    assert (metrics.num_requests, metrics.num_finished, metrics.num_cancelled) == (6, 6, 0)
    assert metrics.num_prompt_tokens == sum(30 + i for i in range(6))
    assert metrics.num_generated_tokens == 6 * 40
    assert metrics.num_preemptions > 0
    assert metrics.num_computed_tokens > metrics.num_prompt_tokens + metrics.num_generated_tokens - 6
    assert (metrics.num_running, metrics.num_waiting, metrics.num_pages_in_use) == (0, 0, 0)
    assert metrics.num_pages == 6
    assert metrics.queue_seconds.count == metrics.time_to_first_token_seconds.count == 6
    assert metrics.time_between_tokens_seconds.count == 6 * 39
    steps = metrics.num_steps
    assert metrics.step_seconds.count == metrics.batch_sequences.count == metrics.batch_tokens.count == steps
    assert metrics.batch_tokens.total == metrics.num_computed_tokens
    assert metrics.step_seconds.quantile(1.0) >= 0.2, "the step that was made slow"
    assert metrics.time_to_first_token_seconds.total >= metrics.queue_seconds.total > 0


def test_what_is_cancelled_or_fails_is_counted_once(observed):
    runner, meter, _, _ = observed
    executor = runner.engine.executor
    executor.waits = {2: 30.0}
    reader = IdReader(prompt_of(40), 10)
    ticket = Ticket(reader.sequence, lambda news: None, reader=reader)
    runner.submit(ticket)
    while len(executor.batches) < 2:
        time.sleep(0.001)
    runner.retire(ticket)
    look(runner)
    with pytest.raises(RuntimeError):
        runner.finish(IdReader([1], 10, fails_at=3))
    metrics = meter.metrics(runner.engine)
    assert (metrics.num_requests, metrics.num_finished, metrics.num_cancelled) == (2, 0, 2)
    assert not meter._tracks


def test_counts_that_are_read_within_a_step_are_those_of_whole_steps(observed):
    """Whoever reads in the middle of a step's counting waits for its end."""
    runner, meter, _, _ = observed
    seen, threads, add = [], [], meter._batch_tokens.add

    class Recorder:  # looks from another thread before the sizes of a step are recorded, and gives it time
        snapshot = meter._batch_tokens.snapshot

        @staticmethod
        def add(*values):
            threads.append(threading.Thread(target=lambda: seen.append(meter.metrics(runner.engine))))
            threads[-1].start()
            threads[-1].join(0.05)
            add(*values)

    meter._batch_tokens = Recorder
    runner.finish(IdReader(prompt_of(30), 3))
    for thread in threads:
        thread.join(10)
    assert len(seen) >= 2
    for metrics in seen:
        assert metrics.batch_sequences.count == metrics.batch_tokens.count == metrics.num_steps


# -- the trace ------------------------------------------------------------------------------------

FIELDS = {"M": {"args"}, "X": {"dur", "args"}, "i": {"s", "args"}, "C": {"args"}}
"""What each phase of the Trace Event Format must have beside the fields of all."""


def check_trace(found):
    """The rules of the format that Perfetto and chrome://tracing insist on."""
    for event in found:
        assert {"name", "ph", "ts", "pid", "tid"} | FIELDS[event["ph"]] == set(event), event
        assert isinstance(event["name"], str) and isinstance(event["args"], dict)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
        assert event.get("dur", 0) >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
    slices = {}
    for event in found:
        if event["ph"] == "X":
            begin, duration = round(event["ts"] * 1000), round(event["dur"] * 1000)  # in nanoseconds
            slices.setdefault(event["tid"], []).append((begin, begin + duration))
    for track in slices.values():  # slices of a track nest, or viewers draw nonsense
        open_ends = []
        for begin, end in sorted(track, key=lambda item: (item[0], -item[1])):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], "viewers leave such a slice out"
            open_ends.append(end)
    named = [(e["name"], e["pid"], e["tid"] * (e["name"] == "thread_name")) for e in found if e["ph"] == "M"]
    assert len(set(named)) == len(named), "a track has one name"
    for event in found:
        if event["ph"] in "Xi":
            assert ("process_name", event["pid"], 0) in named
            assert ("thread_name", event["pid"], event["tid"]) in named


def test_a_trace_follows_the_format_and_shows_every_step_and_request(observed):
    runner, meter, tracer, text = observed
    began = time.perf_counter()
    work(runner)
    longest = (time.perf_counter() - began) * 1e6
    incomplete = text.getvalue()
    runner.close()
    written = io.StringIO()
    text.close, written = lambda: None, text
    tracer.close()
    found = events(written.getvalue())
    check_trace(found)
    assert events(incomplete) == found, "a trace that was cut off is read as well"
    names = [event["name"] for event in found]
    metrics = meter.metrics(runner.engine)
    slices = [event for event in found if event["ph"] == "X"]
    span = max(event["ts"] + event["dur"] for event in slices) - min(event["ts"] for event in slices)
    assert 0.2e6 <= span <= longest, "microseconds: one step was made to take a fifth of a second"
    assert names.count("step") == names.count("compute") == names.count("sample") == metrics.num_steps
    assert names.count("preempted") == metrics.num_preemptions > 0
    assert names.count("queue") == 6 + metrics.num_preemptions
    assert names.count("ended: length") == 6
    runs = [event for event in found if event["name"] in ("prefill", "decode")]
    assert sum(event["args"]["tokens"] for event in runs) == metrics.num_computed_tokens
    assert {event["args"]["request"] for event in runs} == set(range(1, 7))
    assert next(e for e in found if e["name"] == "process_name")["args"]["name"] == 'torchless "x"'
    pages = [event["args"]["in use"] for event in found if event["name"] == "pages"]
    assert max(pages) == 6 and pages[-1] == 0


def test_slices_nest_to_the_nanosecond(observed):
    """Rounding begin and duration apart would let the last part of a step end after the step."""
    _, _, tracer, text = observed
    clocks = random.Random(1)
    for _ in range(500):
        begin = tracer._began + clocks.random() * 1e5
        cuts = sorted(begin + clocks.random() for _ in range(5))
        tracer._step(StepResult([], [], StepTimes(*cuts)), StepTimes(*cuts))
        tracer._began -= 2e5  # the next comes behind it
    check_trace(events(text.getvalue()))


def test_a_cancelled_request_leaves_its_lane_to_the_next(observed):
    runner, _, _, text = observed
    runner.engine.executor.waits = {2: 30.0}
    stream = runner.run(IdReader(prompt_of(10), 10))
    next(stream)
    stream.close()
    runner.finish(IdReader([1], 3))
    found = events(text.getvalue())
    check_trace(found)
    assert len({e["tid"] for e in found if e["name"] in ("prefill", "decode")}) == 1
    assert [e["name"] for e in found if e["ph"] == "i"] == ["cancelled", "ended: length"]


def test_a_full_disk_ends_the_trace_and_nothing_else(observed, caplog):
    runner, _, _, text = observed

    def fail(written):
        raise OSError(28, "No space left on device")

    text.write = fail
    assert len(runner.finish(IdReader([1], 3)).token_ids) == 3
    assert len([r for r in caplog.records if "No space left" in r.getMessage()]) == 1
