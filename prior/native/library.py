"""Find and load the compiled step that this processor can run."""

import ctypes
import platform
from ctypes import POINTER, c_int32, c_int64
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from prior.native.build import FOLDER, Build, builds_for_this_machine, digest_source
from prior.native.structures import FrameArguments, Model, StateArguments


class Library(NamedTuple):
    """A loaded library.

    Attributes:
        functions: ``partita_frame`` and the others, their arguments declared.
        name: of the processor's instructions it was compiled for.
        tile: outputs of a weight that are stored together.
    """

    functions: ctypes.CDLL
    name: str
    tile: int


class NativeStepError(Exception):
    """Why the native step cannot be used, in a few words."""


@lru_cache
def load_library() -> Library:
    """Load the fastest library that is there and that this processor can run.

    Raises:
        NativeStepError: there is none, or it does not load.
    """
    builds = [build for build in builds_for_this_machine() if runs_here(build)]
    if not builds:
        capability = torch.backends.cpu.get_cpu_capability()
        raise NativeStepError(f"no build for {platform.machine()} with {capability}")
    built = [build for build in builds if (FOLDER / build.file_name).is_file()]
    if not built:
        raise NativeStepError(f"not built: run {FOLDER / 'build.py'}")
    reasons = []
    for build in built:
        try:
            return open_library(build)
        except (OSError, AttributeError, NativeStepError) as error:
            reasons.append(f"{build.file_name} does not load: {error}")
    raise NativeStepError("; ".join(reasons))


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
        NativeStepError: it was compiled from another ``frame.c``.
    """
    functions = ctypes.CDLL(str(folder / build.file_name))
    functions.partita_tile.restype = c_int32
    functions.partita_source.restype = ctypes.c_uint64
    functions.partita_checksum.argtypes = [ctypes.c_void_p, c_int64]
    functions.partita_checksum.restype = ctypes.c_uint64
    functions.partita_workspace.argtypes = [POINTER(Model), POINTER(StateArguments)]
    functions.partita_workspace.restype = c_int64
    functions.partita_frame.argtypes = [
        POINTER(Model),
        POINTER(StateArguments),
        POINTER(FrameArguments),
    ]
    functions.partita_frame.restype = c_int32
    if functions.partita_source() != digest_source():
        raise NativeStepError("built from another version, run build.py again")
    return Library(functions, build.instructions or build.machine, functions.partita_tile())
