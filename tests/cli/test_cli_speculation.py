"""Drafting from the command line: the same text, with what became of the drafts in the statistics."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("torchless._core")

PROMPT = "Once upon a time"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchless", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "flags", [("-md", "built-in", "--draft-max", "4"), ("--spec-type", "ngram", "--draft", "3")]
)
def test_drafting_writes_the_same_text_and_says_what_it_did(flags: tuple[str, ...]) -> None:
    options = (PROMPT, "-n", "80", "--seed", "1", "--temp", "0", "--stats")
    plain, drafted = run(*options, "--speculative", "off"), run(*options, *flags)
    assert plain.returncode == drafted.returncode == 0, drafted.stderr
    assert drafted.stdout == plain.stdout and len(plain.stdout) > 100
    hashes = [re.search(r"logits hash +(\w+)", done.stderr) for done in (plain, drafted)]
    assert hashes[0] and hashes[1] and hashes[0][1] == hashes[1][1]
    assert "drafted" not in plain.stderr
    if "-md" in flags:
        assert re.search(r"drafted +\d+ tokens, of which \d+ \(\d+%\) were right", drafted.stderr)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--speculative", "draft"), "needs a second model"),
        (("-md", "built-in", "--speculative", "off"), "nobody would ask it"),
        (("--draft-tokens", "40", "-md", "built-in"), "--draft-tokens must be"),
        (("-md", "/no/such.gguf"), "/no/such.gguf"),
    ],
)
def test_settings_that_cannot_work_end_with_a_sentence(flags: tuple[str, ...], message: str) -> None:
    done = run(PROMPT, "-n", "4", *flags)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
