"""A short run of what scripts/stress does for minutes."""

from __future__ import annotations

import pytest
from stress import Report, run_stress

pytest.importorskip("torchless._core")

LEAST_PREEMPTIONS = 100


def is_enough(report: Report, *, scarce: bool) -> bool:
    """Whether so much happened that the run says something."""
    return (
        sum(report.finished.values()) > 50
        and sum(report.cancelled.values()) > 20
        and len(report.finished) >= 8  # every way of asking took part
        and report.mean_batch > 2
        and (not scarce or report.num_preemptions >= LEAST_PREEMPTIONS)
    )


@pytest.mark.parametrize(("scarce", "threads"), [(False, 2), (True, 1)], ids=["plenty", "scarce"])
def test_everybody_gets_the_bits_of_a_solo_run(scarce: bool, threads: int) -> None:
    for seconds in (4.0, 15.0, 60.0):  # a slow or busy machine, or a sanitizer, needs longer for as much
        report = run_stress(seconds, scarce=scarce, num_jobs=40, threads=threads)
        assert report.failures == []
        if is_enough(report, scarce=scarce):
            return
    pytest.fail(f"a minute was not enough: {report}")
