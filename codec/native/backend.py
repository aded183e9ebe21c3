"""Build backend: setuptools', and a packaged C compiler where the machine has none."""

import runpy
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks that stay setuptools')

needed_compilers = runpy.run_path(str(Path(__file__).with_name("build.py")))["needed_compilers"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return the packages to install before a wheel is built."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *needed_compilers()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return the packages to install before ``pip install -e``."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *needed_compilers()]
