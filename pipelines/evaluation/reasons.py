"""Why a number is missing: the clip cannot be measured, or a package is not installed."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

EVALUATE_EXTRA = "pip install partita[evaluate]"


class UnmeasurableError(ValueError):
    """A metric does not apply to this clip; the message is the reason, fit for a report."""


class MissingPackageError(ImportError):
    """A metric's package is not installed; the message names the package and the command."""


def import_package(module: str, metric: str, install: str = EVALUATE_EXTRA) -> ModuleType:
    """Import an optional package, or say in one line how to get it.

    Args:
        module: the module to import, for example ``"visqol"``.
        metric: what needs it, for the message.
        install: the command that installs it.

    Raises:
        MissingPackageError: the package is not installed or does not import.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(f"{metric} needs {module}: {install} ({error})") from error


def find_package_folder(module: str, metric: str, install: str = EVALUATE_EXTRA) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        MissingPackageError: the package is not installed.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"{metric} needs {module}: {install}")
    return Path(next(iter(spec.submodule_search_locations)))
