"""Import torchaudio's Python part where its native library does not fit the installed torch.

torchaudio's wheels link CUDA: beside a CPU torch, or a torch built for another CUDA version,
``import torchaudio`` raises and takes encodec and much of diffusers down with it. Resampling, mel
filters and Griffin-Lim are pure Python and need none of that library. This module is the first
import of :mod:`codec`, so that whoever imports torchaudio later finds it whole.
"""

import importlib
import logging
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


def ensure_torchaudio() -> bool:
    """Import torchaudio, without its native library if that cannot be loaded.

    Does nothing where torchaudio imports whole. Otherwise ``lfilter`` and the biquads run in
    (slow) Python, and ``forced_align`` and ``rnnt_loss`` are missing.

    Returns:
        True where the native library is in use, False where it had to be left out.

    Raises:
        ImportError: torchaudio is not installed, or does not import without the library either.
    """
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        logger.debug("torchaudio's native library is left out: %s", error)
        _forget_torchaudio()
        sys.modules["torchaudio._extension"] = _extension_without_library()
        importlib.import_module("torchaudio")
    return bool(sys.modules["torchaudio._extension"]._IS_TORCHAUDIO_EXT_AVAILABLE)


def _forget_torchaudio() -> None:
    """Drop what a failed import left behind, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]


def _extension_without_library() -> ModuleType:
    """A ``torchaudio._extension`` that says, as the real one can, that no library was found."""
    extension: Any = module_from_spec(ModuleSpec("torchaudio._extension", None, is_package=True))
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = _fail_if_no_align
    extension._check_cuda_version = lambda: None
    extension._load_lib = lambda name: False
    return extension


def _fail_if_no_align(function: Any) -> Any:
    """Replace a function that needs the alignment library by one that raises when called."""

    def unavailable(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs torchaudio's native library, "
            "which does not load beside the installed torch"
        )

    return unavailable


ensure_torchaudio()
