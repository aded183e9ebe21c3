"""Memory that glibc keeps: in a process of its own, because the setting stays."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from codec.process_settings import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        parts = [torch.ones(1 << 21) for _ in range(4)]  # 8 MiB each
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
first = faults()
if not keep_freed_memory():
    sys.exit("not glibc")
faults()
print(first, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    if "not glibc" in done.stderr:
        pytest.skip("another C library")
    before, after = map(int, done.stdout.split())
    assert after < max(before, 1000) / 4
