"""Compile the C files when Partita is installed; all else stands in pyproject.toml."""

import os
import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = runpy.run_path(str(Path(__file__).parent / "codec" / "native" / "build.py"))
PLATFORM = os.environ.get("PARTITA_WHEEL_PLATFORM")
"""Platform of a wheel for another machine, whose libraries are there; see build.py."""


def libraries() -> list[Path]:
    """The libraries that belong into the wheel."""
    paths = (NATIVE["FOLDER"] / build.file_name for build in NATIVE["builds_for_wheel"](PLATFORM))
    return [path for path in paths if path.is_file()]


class BuildModules(build_py):
    """Compile first; then pack this platform's libraries and no others."""

    def run(self) -> None:
        """See setuptools."""
        if PLATFORM is None:
            NATIVE["build_here"]()
        super().run()
        wanted = {path.name for path in libraries()}
        for path in Path(self.build_lib, "codec", "native").glob("native-*"):
            if path.name not in wanted:  # of a wheel that was built before
                path.unlink()

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        """See setuptools."""
        wanted = {path.name for path in libraries()}
        found = super().find_data_files(package, src_dir)
        return [
            path
            for path in found
            if not Path(path).name.startswith("native-") or Path(path).name in wanted
        ]


class PlatformWheel(bdist_wheel):
    """A wheel for every Python 3 on one platform, or on all where nothing was compiled."""

    def get_tag(self) -> tuple[str, str, str]:
        """See setuptools."""
        tag = super().get_tag()
        if not libraries():
            return tag
        self.root_is_pure = False
        return "py3", "none", PLATFORM or super().get_tag()[2]


setup(cmdclass={"build_py": BuildModules, "bdist_wheel": PlatformWheel})
