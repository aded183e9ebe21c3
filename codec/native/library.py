"""Find and load the compiled library that this processor can run."""

import ctypes
import platform
from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from codec.native.build import FOLDER, Build, builds_for_this_machine, digest_source

FUNCTIONS: dict[str, tuple[list[Any], Any]] = {
    "partita_tile": ([], c_int32),
    "partita_source": ([], ctypes.c_uint64),
    "partita_checksum": ([c_void_p, c_int64], ctypes.c_uint64),
    "partita_workspace": ([c_void_p] * 2, c_int64),
    "partita_frame": ([c_void_p] * 3, c_int32),
    "partita_phases": ([c_void_p] * 8 + [c_int32] * 4 + [c_float] * 2, None),
    "partita_fold": ([c_void_p] * 3 + [c_int64] * 4, None),
    "partita_normalize": ([c_void_p] * 2 + [c_int64], None),
    "partita_scale": ([c_void_p] * 3 + [c_int64], None),
    "partita_mix": ([c_void_p] * 6 + [c_int64] + [c_int32] * 2, None),
    "partita_heads": ([c_void_p] * 6 + [c_int32] * 4 + [c_float], None),
    "partita_rms_norm": ([c_void_p] * 4 + [c_int64] * 2 + [c_float], None),
    "partita_rms_norm_gradient": ([c_void_p] * 6 + [c_int64] * 2, None),
    "partita_swiglu": ([c_void_p] * 2 + [c_int64] * 2, None),
    "partita_swiglu_gradient": ([c_void_p] * 3 + [c_int64] * 2, None),
}
"""Types of every function's arguments and of what it returns."""


class Library(NamedTuple):
    """A loaded library.

    Attributes:
        functions: those of ``FUNCTIONS``, their arguments declared.
        name: of the processor's instructions it was compiled for.
        tile: outputs of a weight that are stored together.
    """

    functions: ctypes.CDLL
    name: str
    tile: int


class NativeError(Exception):
    """Why the C code cannot be used, in a few words."""


@lru_cache
def load_library() -> Library:
    """Load the fastest library that is there and that this processor can run.

    Raises:
        NativeError: there is none, or it does not load.
    """
    builds = [build for build in builds_for_this_machine() if runs_here(build)]
    if not builds:
        capability = torch.backends.cpu.get_cpu_capability()
        raise NativeError(f"no build for {platform.machine()} with {capability}")
    built = [build for build in builds if (FOLDER / build.file_name).is_file()]
    if not built:
        raise NativeError(f"not built: run {FOLDER / 'build.py'}")
    reasons = []
    for build in built:
        try:
            return open_library(build)
        except (OSError, AttributeError, NativeError) as error:
            reasons.append(f"{build.file_name} does not load: {error}")
    raise NativeError("; ".join(reasons))


def runs_here(build: Build) -> bool:
    """Tell whether PyTorch finds the instructions that a build needs."""
    capability = torch.backends.cpu.get_cpu_capability()
    return build.instructions in {"", capability} or (
        build.instructions == "AVX2" and capability == "AVX512"
    )


def open_library(build: Build, folder: Path = FOLDER) -> Library:
    """Load one library and declare its functions.

    Raises:
        OSError: it is damaged or made for another machine.
        AttributeError: it lacks a function.
        NativeError: it was compiled from other C files.
    """
    functions = ctypes.CDLL(str(folder / build.file_name))
    for name, (arguments, result) in FUNCTIONS.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, result
    if functions.partita_source() != digest_source():
        raise NativeError("built from another version, run build.py again")
    return Library(functions, build.instructions or build.machine, functions.partita_tile())
