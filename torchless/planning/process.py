"""What a process takes before it holds a model: interpreter, libraries, tokenizer, threads. Measured in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torchless.errors import TorchlessError

__all__ = ["measure_process"]


def measure_process(model: str, *, is_shape: bool) -> int:
    """Resident bytes of a new process that has read everything of a model but its weights.

    Args:
        model: what `open_source` takes, or the name of a shape.
        is_shape: which of the two.

    Raises:
        TorchlessError: the process failed; the message is its own.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, "shape" if is_shape else "model", model],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise TorchlessError(f"the process that was to read {model} failed: {lines[-1]}")
    return int(done.stdout.split()[-1])


def main(kind: str, model: str) -> int:
    """The process itself; returns its exit status."""
    import torchless.llm  # noqa: F401  (what a user's process imports)
    from torchless.loading import tokenizer_of
    from torchless.models import record_plan
    from torchless.planning.rates import Setting, measure_rates
    from torchless.planning.sources import ShapeSource
    from torchless.processors import usable_cores
    from torchless.weights.open import open_source

    try:
        source = ShapeSource(model) if kind == "shape" else open_source(model)
        kept = source, tokenizer_of(source), record_plan(source)
    except TorchlessError as error:
        print(error, file=sys.stderr)
        return 1
    measure_rates("Q8_0", Setting(usable_cores()), streamed_bytes=0)  # threads, and what only a step loads
    print(_resident_bytes() if kept else 0)
    return 0


def _resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
