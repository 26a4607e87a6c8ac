"""The prefix cache from the command line."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("torchless._core")

TEXT = "Once upon a time there was a little girl named Lily. She had a dog and a red ball. She liked to play."


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchless", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flag", [None, "--no-prefix-cache", "--no-cache-prompt"])
def test_pages_are_kept_unless_it_is_off(flag: str | None) -> None:
    done = run(TEXT, "-n", "30", "--seed", "1", "--metrics", "-", *([flag] if flag else []))
    assert done.returncode == 0, done.stderr
    found = re.search(r"^torchless_kv_pages_kept{.*} (\d+)$", done.stderr, re.MULTILINE)
    assert found is not None and (int(found[1]) > 0) == (flag is None)
