"""Which processor each thread keeps to, on made-up machines; and that keeping to it changes no result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless import placement
from torchless.errors import InvalidRequestError
from torchless.placement import memory_nodes, thread_cpus

needs_linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A machine of cores with two hardware threads each (i and i + cores), dealt to nodes in runs."""

    def make(num_cores: int, nodes: list[str], allowed: set[int] | None = None) -> Path:
        cpus = allowed or set(range(2 * num_cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)
        for cpu in range(2 * num_cores):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            core = cpu % num_cores
            (folder / "thread_siblings_list").write_text(f"{core},{core + num_cores}\n")
        for index, cpulist in enumerate(nodes):
            folder = tmp_path / f"sys/devices/system/node/node{index}"
            folder.mkdir(parents=True)
            (folder / "cpulist").write_text(f"{cpulist}\n")
        return tmp_path

    return make


def test_numa_does_nothing_on_one_node(machine: Callable[..., Path]) -> None:
    root = machine(4, ["0-7"])
    assert thread_cpus(4, pin=False, numa=True, root=root) == ()
    assert thread_cpus(4, pin=False, numa=False, root=root) == ()
    assert thread_cpus(4, pin=True, numa=True, root=root) == thread_cpus(4, pin=True, numa=False, root=root)


def test_pinned_threads_take_cores_before_second_hardware_threads(machine: Callable[..., Path]) -> None:
    root = machine(4, ["0-7"])
    assert thread_cpus(4, pin=True, numa=False, root=root) == (0, 1, 2, 3)
    assert thread_cpus(6, pin=True, numa=False, root=root) == (0, 1, 2, 3, 4, 5)
    assert thread_cpus(9, pin=True, numa=False, root=root)[8] == 0


def test_numa_spreads_threads_evenly_over_two_nodes(machine: Callable[..., Path]) -> None:
    root = machine(8, ["0-3,8-11", "4-7,12-15"])
    assert memory_nodes(root) == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert thread_cpus(4, pin=False, numa=True, root=root) == (0, 1, 4, 5)
    assert thread_cpus(3, pin=False, numa=True, root=root) == (0, 4, 5)
    assert thread_cpus(8, pin=False, numa=True, root=root) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert thread_cpus(4, pin=True, numa=False, root=root) == (0, 1, 2, 3)


def test_nodes_without_an_allowed_processor_do_not_count(machine: Callable[..., Path]) -> None:
    root = machine(8, ["0-3,8-11", "4-7,12-15", ""], allowed={0, 1, 8})
    assert memory_nodes(root) == [[0, 1, 8]]
    assert thread_cpus(2, pin=False, numa=True, root=root) == ()


def test_systems_without_affinity_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(placement.os, "sched_getaffinity", raising=False)
    assert thread_cpus(2, pin=False, numa=False) == ()
    with pytest.raises(InvalidRequestError, match="Linux"):
        thread_cpus(2, pin=True, numa=False)


@needs_linux
def test_pinned_threads_give_the_same_bits_and_let_the_caller_go() -> None:
    before = os.sched_getaffinity(0)
    with torchless.load(threads=2) as free, torchless.load(threads=2, pin=True) as pinned:
        assert len(pinned.info["cpus"]) == 2 and free.info["cpus"] == []
        assert np.array_equal(free.logits([5, 6, 7]), pinned.logits([5, 6, 7]))
        assert os.sched_getaffinity(0) == before
        kept = [os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()]
    assert any(len(cpus) == 1 for cpus in kept)


@needs_linux
def test_two_mocked_nodes_run_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are touched by their readers before packing; the numbers are the same."""
    cpus = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(placement, "memory_nodes", lambda root=None: [cpus[:1], cpus[1:] or cpus])
    with torchless.load(threads=4, numa=True) as spread, torchless.load(threads=1) as alone:
        assert len(spread.info["cpus"]) == 4
        assert np.array_equal(spread.logits([5, 6, 7]), alone.logits([5, 6, 7]))
