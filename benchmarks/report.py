"""From rounds to a report: medians, spreads, ratios within rounds, and the Markdown text."""

from __future__ import annotations

import statistics
from typing import Any

OURS = "torchless"


def summarize(tests: list[str], rounds: list[Any], disturbed: float) -> dict[str, Any]:
    """Statistics over the undisturbed rounds, or over all of them where there are fewer than three such."""
    calm = [r for r in rounds if r.foreign_share <= disturbed]
    kept = calm if len(calm) >= 3 else rounds
    speeds: dict[str, dict[str, Any]] = {}
    for test in tests:
        names = [name for name_of, name in kept[0].tokens_per_second if name_of == test]
        names.sort(key=lambda name: (name != OURS, name))  # Ours first; rounds start with anybody.
        speeds[test] = {name: _spread([r.tokens_per_second[test, name] for r in kept]) for name in names}
    bandwidth = [r.read_bytes_per_second for r in kept if r.read_bytes_per_second is not None]
    return {
        "tests": speeds,
        "ratios": {test: _ratio(speeds[test]) for test in tests},
        "read_bytes_per_second": _spread(bandwidth) if bandwidth else None,
        "rounds": {
            "run": len(rounds),
            "undisturbed": len(calm),
            "used": len(kept),
            "foreign_cpu_share": [round(r.foreign_share, 3) for r in rounds],
            "idle_workers_cpu_s": [round(r.idle_cpu_s, 3) for r in rounds],
        },
    }


def as_markdown(results: dict[str, Any]) -> str:
    """The report for people. All figures are in the JSON form too."""
    parts = [_machine(results), _speeds(results), _loads(results), _end_to_end(results), _noise(results)]
    return "\n\n".join(part for part in parts if part)


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def _ratio(speeds: dict[str, Any]) -> dict[str, Any] | None:
    """Ours to the better of the others, round by round."""
    others = {name: spread for name, spread in speeds.items() if name != OURS}
    if OURS not in speeds or not others:
        return None
    best = max(others, key=lambda name: others[name]["median"])
    pairs = zip(speeds[OURS]["values"], others[best]["values"], strict=True)
    return {"against": best, **_spread([ours / theirs for ours, theirs in pairs])}


def _machine(results: dict[str, Any]) -> str:
    machine, options = results["machine"], results["options"]
    lines = [
        f"- model: {options['model']} ({results['file_bytes'] / 1e6:.1f} MB)",
        f"- every engine: {options['t']} threads, {options['kv']} cache",
        f"- machine: {machine['cpu']} ({machine['cpus']} CPUs; {' '.join(machine['instruction_sets'])})",
        f"- torchless commit: {machine['commit']}",
    ]
    for name, notes in results["contestants"].items():
        if notes["error"]:
            lines.append(f"- {name}: FAILED: {notes['error'].splitlines()[0]}")
            continue
        facts = notes["facts"]
        details = "; ".join(b for b in facts.get("buffers", []) if "model buffer" in b)
        lines.append(f"- {name}: {facts['version']}" + (f" ({details})" if details else ""))
    return "\n".join(lines)


def _speeds(results: dict[str, Any]) -> str:
    """One line a test: medians with their spreads, and ours to the better of the others, round by round."""
    names = list(dict.fromkeys(name for speeds in results["tests"].values() for name in speeds))
    lines = [
        f"| test | {' | '.join(f'{name}, tok/s' for name in names)} | ratio to the best other |",
        "|---" * (len(names) + 2) + "|",
    ]
    for test, speeds in results["tests"].items():
        cells = [_cell(speeds[name]) if name in speeds else "-" for name in names]
        ratio = results["ratios"][test]
        cells.append(
            "-"
            if ratio is None
            else f"**{ratio['median']:.2f} x** ({ratio['min']:.2f} .. {ratio['max']:.2f})"
        )
        lines.append(f"| {test} | {' | '.join(cells)} |")
    return "\n".join(lines + _bandwidth(results))


def _cell(spread: dict[str, Any]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} .. {spread['max']:.2f})"


def _bandwidth(results: dict[str, Any]) -> list[str]:
    read = results["read_bytes_per_second"]
    if read is None:
        return []
    bounds = f"{read['min'] / 1e9:.1f} .. {read['max'] / 1e9:.1f}"
    line = f"Read bandwidth: {read['median'] / 1e9:.1f} GB/s ({bounds})."
    for test, speeds in results["tests"].items():
        if test.startswith("tg") and " x " not in test and OURS in speeds:
            used = speeds[OURS]["median"] * results["file_bytes"]
            share = used / read["median"]
            line += f" In {test} torchless reads the file at {used / 1e9:.1f} GB/s, {share:.0%} of that."
    return ["", line]


def _loads(results: dict[str, Any]) -> str:
    lines = [
        "| engine | load s (warm cache) | peak MB after load | peak MB | KV cache MB | peak / (file + KV) |",
        "|---|---|---|---|---|---|",
    ]
    for name, notes in results["contestants"].items():
        if "peak_bytes" in notes:
            loads, peak, kv = notes["loads_s"], notes["peak_bytes"], notes["kv_bytes"]
            lines.append(
                f"| {name} | {statistics.median(loads):.2f} ({min(loads):.2f} .. {max(loads):.2f}) "
                f"| {notes['loaded_bytes'] / 1e6:.0f} | {peak / 1e6:.0f} | {kv / 1e6:.0f} "
                f"| {peak / (results['file_bytes'] + kv):.2f} |"
            )
    return "\n".join(lines)


def _end_to_end(results: dict[str, Any]) -> str:
    runs = results["end_to_end"]
    if not runs:
        return ""
    prefill = statistics.median(run["prefill_tokens_per_second"] for run in runs)
    decode = statistics.median(run["decode_tokens_per_second"] for run in runs)
    same = "same" if len({run["logits_hash"] for run in runs}) == 1 else "DIFFERENT"
    return (
        f"torchless end to end (`generate`, {runs[0]['prompt_tokens']} + {runs[0]['completion_tokens']} "
        f"tokens): prefill {prefill:.2f}, decode {decode:.2f} tok/s; {same} logits in {len(runs)} runs."
    )


def _noise(results: dict[str, Any]) -> str:
    rounds = results["rounds"]
    differences = ", ".join(f"{name} {x:.2%}" for name, x in results["logits_difference"].items())
    lines = [f"Logits against ours, rms difference: {differences}."] if differences else []
    if rounds["undisturbed"] < min(3, rounds["run"]):
        lines.append(
            "WARNING: the machine was busy in nearly every round; the figures above are not to be trusted."
        )
    worst, idle = max(rounds["foreign_cpu_share"]), max(rounds["idle_workers_cpu_s"])
    lines.append(
        f"{rounds['run']} rounds, {rounds['undisturbed']} undisturbed, {rounds['used']} used. Others took "
        f"at most {worst:.0%} of a test's CPU time, the sleeping engines at most {idle:.2f} s in a round."
    )
    return "\n".join(lines)
