"""Let torchaudio import without its native library where that does not fit the installed torch.

torchaudio's wheels on PyPI link CUDA: beside a CPU torch, or one built for another CUDA version,
``import torchaudio`` raises and takes encodec and much of diffusers down with it. Mel filters and
resampling are pure Python and need none of that library. Each of our packages installs the guard
when it is imported; it acts when torchaudio is imported, whoever does that first.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


class TorchaudioGuard(MetaPathFinder):
    """Finds ``torchaudio._extension``, the module that loads the library, for a tolerant loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchaudio._extension":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = TolerantLoader(spec.loader.name, spec.loader.path)
        return spec


class TolerantLoader(SourceFileLoader):
    """Runs ``torchaudio._extension``; if its library does not load, says that there is none.

    Then ``lfilter`` and the biquads run in (slow) Python; ``forced_align`` and ``rnnt_loss`` raise.
    """

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except ModuleNotFoundError:
            raise
        except (ImportError, OSError, RuntimeError) as error:
            logger.debug("torchaudio's native library is left out: %s", error)
            module.__dict__.update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False,
                _IS_ALIGN_AVAILABLE=False,
                fail_if_no_align=_refuse_calls,
                _check_cuda_version=lambda: None,
                _load_lib=lambda name: False,
            )


def _refuse_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function that needs the alignment library by one that raises when called."""

    def unavailable(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs torchaudio's native library, "
            "which does not load beside the installed torch"
        )

    return unavailable


def guard_torchaudio() -> None:
    """Install the guard, once for the process."""
    if not any(isinstance(finder, TorchaudioGuard) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchaudioGuard())
