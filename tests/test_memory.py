"""What is available: recorded and made-up contents of /proc and /sys, and the real machine."""

import os
import subprocess
import sys

import pytest

from torchless.memory import available_memory, format_bytes
from torchless.processors import usable_cores

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """Writes files under a made-up root; returns the root."""

    def write(files):
        files = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   8388608 kB\n", **files}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    return write


V2_MOUNT = "30 23 0:26 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 {shown} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"


def v2(limit, current, *, group="", stat=""):
    folder = f"sys/fs/cgroup/{group}".rstrip("/")
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": current, f"{folder}/memory.stat": stat}


def test_without_limits_it_is_what_the_kernel_calls_available(machine):
    found = available_memory(machine({}))
    assert found == (8 * GIB, "free memory of this machine")


def test_control_group_v2_counts_file_cache_as_free(machine):
    stat = f"anon 1\nactive_file {GIB}\ninactive_file {GIB}\nshmem 5\n"
    files = {"proc/self/mountinfo": V2_MOUNT.format(shown="/"), "proc/self/cgroup": "0::/app\n"}
    root = machine({**files, **v2(4 * GIB, 3 * GIB, group="app", stat=stat)})
    found = available_memory(root)
    assert found.num_bytes == 3 * GIB
    assert "control group (4.0 GiB)" in found.limit


def test_a_parent_group_may_be_the_tighter_one(machine):
    files = {"proc/self/mountinfo": V2_MOUNT.format(shown="/"), "proc/self/cgroup": "0::/user/app\n"}
    inner = v2("max", GIB, group="user/app")
    outer = v2(3 * GIB, 2 * GIB, group="user")
    assert available_memory(machine({**files, **inner, **outer})).num_bytes == GIB


@pytest.mark.parametrize("shown", ["/", "/docker/abc", "/docker/abc/inner"])
def test_a_container_that_sees_its_own_group_as_the_top(machine, shown):
    """With and without a namespace: the path may lie in, at, or outside the part that the mount shows."""
    path = "/" if shown == "/" else "/docker/abc"
    files = {"proc/self/mountinfo": V2_MOUNT.format(shown=shown), "proc/self/cgroup": f"0::{path}\n"}
    assert available_memory(machine({**files, **v2(2 * GIB, GIB)})).num_bytes == GIB


def test_a_group_above_the_namespace_is_read_at_the_top(machine):
    files = {"proc/self/mountinfo": V2_MOUNT.format(shown="/"), "proc/self/cgroup": "0::/../../x\n"}
    assert available_memory(machine({**files, **v2(2 * GIB, GIB)})).num_bytes == GIB


def test_control_group_v1_with_its_hierarchical_statistics(machine):
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 7\n"
    files = {
        "proc/self/mountinfo": V1_MOUNT.format(shown="/", name="memory")
        + V1_MOUNT.format(shown="/", name="cpu"),
        "proc/self/cgroup": "5:memory:/job\n1:cpu:/\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 5 * GIB,
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": 4 * GIB,
        "sys/fs/cgroup/memory/job/memory.stat": stat,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 6 * GIB,
    }
    assert available_memory(machine(files)).num_bytes == 2 * GIB + 7


def test_a_group_over_its_limit_has_nothing_left(machine):
    files = {"proc/self/mountinfo": V2_MOUNT.format(shown="/"), "proc/self/cgroup": "0::/\n"}
    assert available_memory(machine({**files, **v2(GIB, 2 * GIB)})).num_bytes == 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_the_address_space_limit_counts():
    code = (
        "import resource\n"
        "from torchless.memory import available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 28, 3 << 28))\n"
        "found = available_memory()\n"
        "assert 0 < found.num_bytes < 3 << 28 and 'ulimit -v' in found.limit, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_this_machine_has_memory():
    assert 1 << 20 < available_memory().num_bytes < 1 << 50


def test_sizes_are_readable():
    assert [format_bytes(n) for n in (0, 1023, 1536, 200 << 20, 5 * GIB, 3 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "200 MiB", "5.0 GiB", "3.0 TiB",
    ]  # fmt: skip


# -- processors -----------------------------------------------------------------------------------


@pytest.fixture
def eight_processors(monkeypatch, machine):
    """Four cores of two threads each; returns a function from more files to the number found."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    siblings = {
        f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}\n"
        for i in range(8)
    }
    return lambda files=None: usable_cores(machine({**siblings, **(files or {})}))


def test_hardware_threads_of_a_core_count_once(eight_processors):
    assert eight_processors() == 4


def test_the_affinity_mask_counts(eight_processors, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 4, 1}, raising=False)
    assert eight_processors() == 2


@pytest.mark.parametrize(("quota", "expected"), [("max", 4), ("250000", 2), ("50000", 1), ("800000", 4)])
def test_quota_of_control_group_v2(eight_processors, quota, expected):
    files = {
        "proc/self/mountinfo": V2_MOUNT.format(shown="/"),
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/cpu.max": f"{quota} 100000\n",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    }
    assert eight_processors(files) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("300000", 3)])
def test_quota_of_control_group_v1(eight_processors, quota, expected):
    files = {
        "proc/self/mountinfo": V1_MOUNT.format(shown="/", name="cpu,cpuacct"),
        "proc/self/cgroup": "3:cpu,cpuacct:/\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    assert eight_processors(files) == expected


def test_a_machine_without_topology_files_counts_processors(machine):
    assert usable_cores(machine({})) == len(os.sched_getaffinity(0))
