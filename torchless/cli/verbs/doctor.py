"""``torchless doctor``: what this machine can do for a model, and what limits it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import one_model
from torchless.cli.quality import StatusLine
from torchless.cli.terminal import listing

if TYPE_CHECKING:
    from torchless.bench.diagnosis import Diagnosis, Forecast

__all__ = ["command"]

_HELP = """Measure this machine, predict a model's speed on it, and say in one sentence what limits it.

MODEL is a GGUF file or a Hugging Face folder; its weights are not loaded. Predictions are what the measured roofs
allow; `torchless bench` measures what is reached.
"""

_OPTIONS = (
    Option("-m", "--model", metavar="PATH", help="Same as the argument MODEL."),
    Option("--json", "as_json", is_flag=True, help="Print JSON."),
)


@click.command("doctor", cls=Verb, help=_HELP, short_help="Say what limits speed on this machine.")
@with_options([words_argument("[MODEL]")], _OPTIONS)
def command(words: tuple[str, ...], model: str | None, as_json: bool) -> None:
    from torchless.bench.diagnosis import as_values, diagnose

    name = one_model(words, model)
    status = StatusLine()
    with SignalWatch(status.clear):
        status.show("measuring this machine")
        diagnosis = diagnose(name)
    status.clear()
    if as_json:
        print(json.dumps(as_values(diagnosis), indent=1))
        return
    blocks = [listing("machine", _machine(diagnosis)), listing("measured", _measured(diagnosis))]
    if diagnosis.forecast is not None:
        blocks.append(listing("model", _model(diagnosis.forecast)))
    blocks.append(listing("in a sentence", [("limit", diagnosis.advice)]))
    print("\n\n".join("\n".join(lines) for lines in blocks))


def _machine(diagnosis: Diagnosis) -> Iterable[tuple[str, str]]:
    from torchless.memory import format_bytes

    machine = diagnosis.machine
    yield "processor", machine.cpu
    others = [level for level in machine.levels if level != machine.level]
    yield "kernels", machine.level + (f" (also possible: {', '.join(others)})" if others else "")
    yield (
        "cores",
        f"{machine.physical_cores} on {machine.allowed_cpus} of {machine.logical_cpus} processors that this process "
        f"may use",
    )
    yield "CPU quota", "none" if machine.quota is None else f"{machine.quota:g} processors"
    yield "threads", f"{machine.threads} by default"
    yield "others' use", "" if machine.busy is None else f"{machine.busy:.0%} of the processors just now"
    yield "huge pages", machine.huge_pages or "unknown"
    if machine.memory is not None:
        yield "memory left", f"{format_bytes(machine.memory.num_bytes)} ({machine.memory.limit})"


def _measured(diagnosis: Diagnosis) -> Iterable[tuple[str, str]]:
    roofs, one = diagnosis.roofs, diagnosis.one_thread
    alone = roofs.num_threads == 1
    reads = f"{roofs.read_bytes_per_second / 1e9:.1f} GB/s"
    yield "reads", reads + ("" if alone else f" ({one.read_bytes_per_second / 1e9:.1f} with one thread)")
    for kind, peak in roofs.operations_per_second.items():
        single = one.operations_per_second[kind] / 1e9
        yield (
            f"{kind} dots",
            f"{peak / 1e9:.0f} GOP/s" + ("" if alone else f" ({single:.0f} with one thread)"),
        )


def _model(model: Forecast) -> Iterable[tuple[str, str]]:
    from torchless.memory import format_bytes

    yield "file", model.model
    yield "weights", f"{format_bytes(model.weight_bytes)}, read once per token"
    yield (
        "cache",
        f"{format_bytes(round(model.kv_bytes_per_token))} per token; {format_bytes(model.needed_bytes)} in all with "
        f"{model.long_context} tokens",
    )
    yield (
        "decoding",
        f"at most {model.decode_tokens_per_second:.4g} tok/s, "
        f"{model.long_decode_tokens_per_second:.4g} after {model.long_context} tokens",
    )
    yield "prefill", f"at most {model.prefill_tokens_per_second:.4g} tok/s"
