"""A short run of what scripts/stress does for minutes."""

from __future__ import annotations

import pytest
from stress import run_stress

pytest.importorskip("torchless._core")


@pytest.mark.parametrize(("scarce", "threads"), [(False, 2), (True, 1)], ids=["plenty", "scarce"])
def test_everybody_gets_the_bits_of_a_solo_run(scarce: bool, threads: int) -> None:
    report = run_stress(4.0, scarce=scarce, num_jobs=40, threads=threads)
    assert report.failures == []
    assert sum(report.finished.values()) > 50 and sum(report.cancelled.values()) > 20
    assert len(report.finished) >= 8, "every way of asking took part"
    assert report.mean_batch > 2
    if scarce:
        assert report.num_preemptions >= 100
