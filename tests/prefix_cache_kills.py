"""Kills processes that write to one prefix cache, and looks whether later ones answer as if nothing had been."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from prefix_cache_worker import NUM_PROMPTS

WORKER = Path(__file__).with_name("prefix_cache_worker.py")


def start(
    model: Path, folder: Path, size: str, seed: int, count: int, where: str = "on"
) -> subprocess.Popen[str]:
    arguments = [str(model), str(folder), size, str(seed), str(count), where]
    return subprocess.Popen(
        [sys.executable, str(WORKER), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(output: str) -> list[tuple[int, str]]:
    """What whole lines say, whatever the last one was cut to."""
    lines = output.splitlines(keepends=True)
    parts = [line.split() for line in lines if line.endswith("\n") and line != "ready\n"]
    return [(int(number), digest) for number, digest in parts]


def kill_often(model: Path, folder: Path, times: int, *, size: str = "300KiB", seed: int = 1) -> str:
    """Two processes at once, killed after a random time, `times` in all; then one that may finish.

    Returns:
        A sentence about what was seen.

    Raises:
        AssertionError: an answer was wrong, or a process ended by itself with an error.
    """
    chance = random.Random(seed)
    process = start(model, folder, size, 0, NUM_PROMPTS, "off")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    expected = dict(answers(output))
    assert len(expected) == NUM_PROMPTS
    killed = checked = num_starts = 0
    while killed < times:
        both = [start(model, folder, size, seed + num_starts + i, 100_000) for i in range(2)]
        num_starts += 2
        for process in both:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in both:
            time.sleep(chance.uniform(0, 0.4))
            assert process.poll() is None, "it ended by itself"
            process.kill()
            killed += 1
        for process in both:  # not by `communicate`, which loses what was read along with the first line
            assert process.stdout is not None and process.stderr is not None
            output, errors = process.stdout.read(), process.stderr.read()
            process.wait(60)
            assert "Traceback" not in errors, errors
            found = answers(output)
            checked += len(found)
            wrong = [pair for pair in found if expected[pair[0]] != pair[1]]
            assert not wrong, f"wrong answers after {killed} kills: {wrong}"
    process = start(model, folder, size, 9, 100)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and not errors, errors
    assert all(expected[number] == digest for number, digest in answers(output))
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*.page"))
    assert num_bytes <= 300 << 10
    halves = len(list(folder.rglob(".writing*")))
    return (
        f"{killed} processes killed, {checked} answers compared, none wrong; {num_bytes >> 10} KiB kept, "
        f"{halves} files half written"
    )
