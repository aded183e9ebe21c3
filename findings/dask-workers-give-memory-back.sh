#!/usr/bin/env bash
# Expected: a function costs a dask worker of one thread the processor time that it costs any process.
# Found: a nanny starts its worker with MALLOC_TRIM_THRESHOLD_=65536, so that freed memory goes back to
#   the system. Setting that one also switches off glibc's adapting mmap threshold, so every array above
#   128 KiB is mapped anew, and each of its pages is a fault that the kernel fills with zeros first:
#   900 faults for every array of 8 MB, where a plain process has none.
# Matters: preparing recordings on two dask workers took 1.6 times the processor time of two processes.
#   Partita's jobs on a worker set both thresholds with mallopt, and cost what they cost elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 numpy==2.3.5
cat > "$folder/work.py" <<'PYTHON'
import resource
from importlib.metadata import version

import numpy as np


def page_faults():
    """Count the page faults of 300 arrays of 8 MB, after 20 that warm the allocator up."""
    for turn in range(320):
        if turn == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(1_000_000).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main():
    import dask
    import distributed

    print("distributed", version("distributed"), "numpy", np.__version__)
    set_for_workers = dask.config.get("distributed.nanny.pre-spawn-environ")
    print("set for workers:", {k: v for k, v in set_for_workers.items() if "MALLOC" in k})
    plain = page_faults()
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        worker = client.submit(page_faults).result()
    print("page faults, plain process:", plain, " dask worker:", worker)
    assert worker > 100 * max(1, plain), "a dask worker keeps freed memory now"


if __name__ == "__main__":
    main()
PYTHON
cd "$folder" && venv/bin/python work.py
