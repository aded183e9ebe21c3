"""tcmalloc for training: glibc's allocator gives the large blocks of every step back in between.

Training measured 1.3 to 2 times faster on two cores with it; everything works without.
"""

import ctypes.util
import os
import sys
from collections.abc import Mapping

LIBRARY = "tcmalloc_minimal"


def preloading_environment(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment with tcmalloc preloaded, or None where it is missing or one is preloaded."""
    if environment.get("LD_PRELOAD") or not sys.platform.startswith("linux"):
        return None
    library = ctypes.util.find_library(LIBRARY)
    return {**environment, "LD_PRELOAD": library} if library else None


def preload_allocator() -> None:
    """Start this process again, once, with tcmalloc in front; return where that is not possible."""
    environment = preloading_environment(os.environ)
    if environment is not None:
        os.execve(sys.executable, sys.orig_argv, environment)
