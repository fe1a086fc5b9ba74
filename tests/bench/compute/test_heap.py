"""What is freed is kept for the next allocation, until it is given back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROGRAM = """
import json, resource, sys
import torch
from bench.compute.heap import keep_heap, trim_heap

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(10_000_000)  # 40 MB
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / times

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

apart = faults(4)
keep_heap()
larger = faults(4)
keep_heap(40_000_000)
faults(20)  # the heap grows until it has room
kept, before = faults(4), resident()
trim_heap()
print(json.dumps([apart, larger, kept, before - resident()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_freed_memory_is_kept_and_can_be_given_back():
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True
    )
    apart, larger, kept, given_back = json.loads(found.stdout)
    assert larger >= apart / 2
    # A page is 4 kB or a large one: with large ones a fault is rare either way.
    assert kept <= apart / 10
    assert given_back > 30_000_000
