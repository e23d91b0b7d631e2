"""Memory that is free: what the system and the control group of the process leave."""

from __future__ import annotations

import pytest

from causalrisk.runtime.system import free_memory, memory

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
}


@pytest.mark.parametrize("kind", GROUPS)
def test_free_memory_is_what_the_system_and_the_control_group_leave(tmp_path, monkeypatch, kind):
    groups, files, free = GROUPS[kind]
    monkeypatch.setattr("causalrisk.runtime.system.memory", lambda: 8e9)
    assert free_memory(str(tmp_path)) == 8e9  # a system that does not say
    known = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4000000 kB\n", "proc/self/cgroup": groups, **files}
    for name, text in known.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(str(tmp_path)) == free


def test_free_memory_of_this_computer():
    assert 0 <= free_memory() <= memory()
