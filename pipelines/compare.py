"""LSTM against Transformer: ``python pipelines/compare.py --config configs/compare.yaml``.

One command trains every arm at equal parameter count and equal data, measures it, and writes the
document with its tables, plots and readings. It goes on where an earlier run stopped. Started a
second time beside itself it takes other arms, a core each; ``accelerate launch`` (or torchrun)
shares every arm's batches among processes instead.
"""

import os
import sys

from pipelines.training.preloading import let_threads_sleep, preload_allocator

if __name__ == "__main__":
    let_threads_sleep(os.environ)
    if "WORLD_SIZE" not in os.environ:  # a launcher's processes must not start themselves again
        preload_allocator()
    from pipelines.comparison.run_comparison import main  # torch, after what precedes it

    sys.exit(main())
