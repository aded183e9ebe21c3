"""Compile ``frame.c`` with whatever compiler is there: ``python prior/native/build.py``.

It imports Python's library alone, so that an installation can run it. By hand it also compiles
for other machines, with ``pip install ziglang``: ``python prior/native/build.py --all``.
"""

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SUFFIXES = {"linux": ".so", "macos": ".dylib", "windows": ".dll"}
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
"""Not -ffast-math: linked with it, a library changes how the whole process rounds."""


class Build(NamedTuple):
    """One library.

    Attributes:
        system: "linux", "macos" or "windows".
        machine: "x86_64" or "aarch64".
        instructions: what the processor must know, as PyTorch names it; "" for every one.
        flags: for gcc and clang.
        zig: target and processor, as ``zig cc`` wants them.
    """

    system: str
    machine: str
    instructions: str
    flags: tuple[str, ...]
    zig: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """Name the library's file."""
        parts = (self.system, self.machine, self.instructions.lower())
        return "frame-" + "-".join(filter(None, parts)) + SUFFIXES[self.system]


def x86_builds(system: str, target: str) -> tuple[Build, Build]:
    """Both builds for a system on x86-64, the faster one first."""
    wide = "-mprefer-vector-width=512"
    zig = ("-target", f"x86_64-{target}")
    return (
        Build(
            system,
            "x86_64",
            "AVX512",
            ("-march=x86-64-v4", wide),
            (*zig, "-mcpu=x86_64_v4", wide),
        ),
        Build(system, "x86_64", "AVX2", ("-march=x86-64-v3",), (*zig, "-mcpu=x86_64_v3")),
    )


BUILDS = (
    *x86_builds("linux", "linux-gnu.2.17"),
    Build("linux", "aarch64", "", (), ("-target", "aarch64-linux-gnu.2.17")),
    Build("macos", "aarch64", "", (), ("-target", "aarch64-macos")),
    *x86_builds("windows", "windows-gnu"),
)


def builds_for_this_machine() -> list[Build]:
    """The builds that this system and machine could load, whatever the processor knows."""
    system = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return [build for build in BUILDS if (build.system, build.machine) == (system, machine)]


def digest_source() -> int:
    """A digest of ``frame.c`` in 64 bits, which every library made from it knows."""
    digest = hashlib.blake2b((FOLDER / "frame.c").read_bytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def find_compiler() -> list[str] | None:
    """The command of a C compiler: ``$CC``, the system's, or the ``ziglang`` package."""
    for name in (os.environ.get("CC", "cc"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    return find_zig()


def find_zig() -> list[str] | None:
    """The command of the C compiler in the ``ziglang`` package, or None."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_library(build: Build, compiler: list[str], folder: Path = FOLDER) -> Path:
    """Compile a library, which appears under its name only when it is whole.

    Raises:
        subprocess.CalledProcessError: the compiler failed; what it said is in ``stderr``.
    """
    target = folder / build.file_name
    partial = folder / f"{os.getpid()}-{build.file_name}"
    flags = (*build.zig, "-s") if "ziglang" in compiler else build.flags
    position = () if build.system == "windows" else ("-fPIC",)
    defined = f"-DPARTITA_SOURCE={digest_source():#x}u"
    command = [*compiler, *FLAGS, *flags, *position, defined, "-shared", str(FOLDER / "frame.c")]
    try:
        subprocess.run([*command, "-o", str(partial), "-lm"], check=True, capture_output=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def build_here() -> list[Path]:
    """Compile this machine's libraries where a compiler is found; say on standard error if not."""
    compiler = find_compiler()
    builds = builds_for_this_machine()
    if compiler is None or not builds:
        missing = "no C compiler" if builds else f"no build for {platform.machine()}"
        print(f"native step not built ({missing}): PyTorch's runs, slower", file=sys.stderr)
        return []
    built = []
    for build in builds:
        try:
            built.append(compile_library(build, compiler))
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace")
            print(f"{build.file_name} not built: {said.strip()}", file=sys.stderr)
    return built


def main() -> int:
    """Compile for this machine, or with ``--all`` for every one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every build, with ziglang")
    if parser.parse_args().all:
        zig = find_zig()
        if zig is None:
            print("error: --all needs `pip install ziglang`", file=sys.stderr)
            return 2
        built = [compile_library(build, zig) for build in BUILDS]
    else:
        built = build_here()
    print("\n".join(str(path) for path in built))
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
