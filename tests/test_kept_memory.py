"""Memory that glibc keeps: in a process of its own, because the setting stays."""

import os
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
if sys.argv[1] == "on a worker":
    from pipelines.data.worker_processes import on_one_thread
    on_one_thread(abs, 1)
elif not keep_freed_memory():
    sys.exit("not glibc")
faults()
print(first, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
@pytest.mark.parametrize("where", ["here", "on a worker"])
def test_freed_memory_is_used_again(where: str):
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as dask starts its workers
    command = [sys.executable, "-c", FAULTS, where]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "not glibc" in done.stderr:
        pytest.skip("another C library")
    before, after = map(int, done.stdout.split())
    assert after < max(before, 1000) / 4
