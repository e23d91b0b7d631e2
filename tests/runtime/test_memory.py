"""Memory that freed arrays leave is not given back to the system and cleared again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from causalrisk.runtime.memory import free_memory, memory

SCRIPT = """
import resource
import numpy as np
from causalrisk.runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones(32_000) for _ in range(10)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
first = faults()
keep_freed_memory()
faults()
print(first, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
@pytest.mark.parametrize("told", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}], ids=["a script", "a worker of Dask"])
def test_pages_are_cleared_once(told):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=os.environ | told
    )
    without, kept = map(int, done.stdout.split())
    assert without > 5000  # of 12,500 pages, again and again
    assert kept < 100


GROUPS = {
    "unlimited": ("0::/job\n", {"sys/fs/cgroup/job/memory.max": "max"}, 4096e6),
    "second version": (
        "0::/job/step\n",
        {
            "sys/fs/cgroup/job/memory.max": "3000000000",
            "sys/fs/cgroup/job/memory.current": "1500000000",
            "sys/fs/cgroup/job/memory.stat": "anon 7\ninactive_file 500000000",
            "sys/fs/cgroup/job/step/memory.max": "max",
        },
        2e9,
    ),
    "first version": (
        "5:cpu:/\n4:memory:/\n",
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "2100000000",
        },
        0.0,
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_free_memory_is_what_the_system_and_the_control_group_leave(tmp_path, monkeypatch, kind):
    groups, files, free = GROUPS[kind]
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr("causalrisk.runtime.memory.memory", lambda: 8e9)
    assert free_memory(str(tmp_path)) == 8e9  # a system that does not say
    known = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4000000 kB\n", "proc/self/cgroup": groups, **files}
    for name, text in known.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(str(tmp_path)) == free


def test_free_memory_of_this_computer():
    assert 0 <= free_memory() <= memory()
