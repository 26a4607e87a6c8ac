"""The doctor's sentence: the worst thing first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torchless.bench.diagnosis import Forecast, Machine, advise
from torchless.bench.machine import Roofs
from torchless.memory import Available

pytest.importorskip("torchless._core")

GOOD = Machine(
    "a CPU",
    "avx512",
    ("scalar", "avx2", "avx512"),
    8,
    8,
    4,
    None,
    4,
    "madvise",
    0.01,
    Available(1 << 34, "x"),
)
ONE = Roofs(1, 10e9, {"int8": 4e11, "bf16": 2e11, "f32": 1e11})
ALL = Roofs(4, 30e9, {"int8": 16e11, "bf16": 8e11, "f32": 4e11})
MODEL = Forecast("m.gguf", 4 << 30, 131072.0, 5 << 30, 7.0, 4096, 6.0, 100.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"memory": Available(1 << 30, "free memory")},
            "the model needs 5.0 GiB, but 1.0 GiB are left",
        ),
        ({"level": "avx2"}, "level avx2 although this processor can run avx512; unset TORCHLESS_ISA"),
        ({"busy": 0.5}, "Other processes use 50% of the processors"),
        ({"quota": 1.5}, "grants 1.5 of 4 cores; raise its CPU quota"),
        ({"allowed_cpus": 2}, "allows 2 of 8 processors"),
        ({"huge_pages": "never"}, "Huge pages are off"),
        ({}, "limited by reading 4.0 GiB of weights per token at 30.0 GB/s; only fewer bytes"),
    ],
)
def test_the_first_thing_that_applies_is_said(changes: dict[str, object], sentence: str) -> None:
    advice = advise(replace(GOOD, **changes), ONE, ALL, MODEL)  # type: ignore[arg-type]
    assert sentence in advice
    assert advice.endswith(".")


def test_worse_things_come_first() -> None:
    machine = replace(GOOD, level="avx2", busy=0.9, quota=1.0, huge_pages="never")
    assert "TORCHLESS_ISA" in advise(machine, ONE, ALL, MODEL)


def test_it_says_when_threads_do_not_help() -> None:
    assert "more threads do not help: one alone reads at 29.0" in advise(
        GOOD, Roofs(1, 29e9, ONE.operations_per_second), ALL, MODEL
    )
    assert "Decoding is limited by reading memory at 30.0 GB/s" in advise(GOOD, ONE, ALL, None)
