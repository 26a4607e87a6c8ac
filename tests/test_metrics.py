"""Metrics of a model: their text form, what they cost, and where a user meets them."""

from __future__ import annotations

import re
import time

import pytest
from test_llm import make

from torchless.metrics import Histogram, Metrics, Recorder, prometheus_text


def test_values_fall_into_the_bucket_whose_bound_they_do_not_exceed():
    recorder = Recorder((1.0, 2.0, 4.0))
    for value in (0.5, 1.0, 1.5, 4.0, 9.0):
        recorder.add(value)
    recorder.add(2.0, 3)
    histogram = recorder.snapshot()
    assert histogram == Histogram((1.0, 2.0, 4.0), (2, 4, 1, 1), 22.0)
    assert histogram.count == 8 and histogram.mean == 22 / 8
    assert [histogram.quantile(q) for q in (0.0, 0.25, 0.5, 0.8, 1.0)] == [1.0, 1.0, 2.0, 4.0, float("inf")]
    assert Recorder((1.0,)).snapshot().quantile(0.5) == 0.0 == Recorder((1.0,)).snapshot().mean


def test_a_model_counts_its_requests():
    with make() as model:
        before = model.metrics()
        model.generate("abc", max_tokens=12, seed=1)
        model.batch(["ab", "c"], max_tokens=3, seed=1)
        metrics = model.metrics()
    assert isinstance(before, Metrics) and before.num_requests == 0
    assert (metrics.num_requests, metrics.num_finished) == (3, 3)
    assert metrics.num_prompt_tokens == 4 + 3 + 2


SAMPLE = re.compile(r'(torchless_[a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="[^"]*")*\})? (\S+)')


def parse(text):
    """Samples by name and labels, as the exposition format 0.0.4 has them, checked on the way."""
    assert text.endswith("\n")
    samples, kinds, described = {}, {}, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            described.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name in described and name not in kinds
            kinds[name] = kind
        else:
            name, labels, value = SAMPLE.fullmatch(line).groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            kind = kinds[name] if name in kinds else kinds[family]
            assert (kind == "counter") == name.endswith("_total")
            assert (name, labels) not in samples
            samples[name, labels] = float(value)
    return samples, kinds


def test_the_text_form_is_prometheus_and_says_what_the_snapshot_says():
    with make() as model:
        model.generate("abc", max_tokens=12, seed=1)
        metrics = model.metrics()
    samples, kinds = parse(metrics.prometheus(model='a "b"\\c\n'))
    label = '{model="a \\"b\\"\\\\c\\n"}'
    assert samples["torchless_generated_tokens_total", label] == metrics.num_generated_tokens
    assert kinds["torchless_kv_pages"] == "gauge"
    name = "torchless_time_between_tokens_seconds"
    assert kinds[name] == "histogram"
    buckets = [value for (n, _), value in samples.items() if n == f"{name}_bucket"]
    assert buckets == sorted(buckets) and len(buckets) == len(metrics.step_seconds.bounds) + 1
    assert buckets[-1] == samples[f"{name}_count", label] == metrics.time_between_tokens_seconds.count
    assert samples[f"{name}_sum", label] == metrics.time_between_tokens_seconds.total


def test_several_models_share_one_text():
    with make() as one, make() as two:
        one.generate("abc", max_tokens=2, seed=1)
        text = prometheus_text([({"model": "one"}, one.metrics()), ({"model": "two"}, two.metrics())])
    samples, _ = parse(text)
    assert samples["torchless_requests_total", '{model="one"}'] == 1
    assert samples["torchless_requests_total", '{model="two"}'] == 0


def test_the_text_form_is_read_by_prometheus_own_parser():
    parser = pytest.importorskip("prometheus_client.parser")
    with make() as model:
        model.generate("abc", max_tokens=12, seed=1)
        families = {f.name: f for f in parser.text_string_to_metric_families(model.metrics().prometheus())}
    assert families["torchless_requests"].type == "counter"
    assert families["torchless_step_seconds"].type == "histogram"


def test_counting_is_no_part_of_a_step_that_anyone_would_notice():
    """Both measured here: what the meter takes for a step of one sequence (about a hundredth), and such a step.

    A tenth is allowed: the clock of a shared machine is no proof of more.
    """
    torchless = pytest.importorskip("torchless")
    pytest.importorskip("torchless._core")
    with torchless.load() as model:
        model.generate("Once upon a time", max_tokens=50, ignore_eos=True, seed=1)
        engine, meter, results = model._runner.engine, model._meter, []

        class Keeper:
            def added(self, engine, sequence): ...
            def cancelled(self, engine, sequence): ...
            def close(self): ...
            def stepped(self, engine, result):
                results.append(result)

        engine.observers.append(Keeper())
        model.generate("Once upon a time", max_tokens=50, ignore_eos=True, seed=1)
        steps = sorted(result.times.booked - result.times.began for result in results)
        result = results[20]
        sequence = result.runs[0].sequence
        meter.added(engine, sequence)
        result.finished.clear()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(1000):
                sequence.num_tokens += 1
                meter.stepped(engine, result)
            times.append((time.perf_counter() - start) / 1000)
        meter.cancelled(engine, sequence)
    assert min(times) < steps[len(steps) // 2] / 10, (min(times), steps[len(steps) // 2])
