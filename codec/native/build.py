"""Compile the C files with whatever compiler is there: ``python codec/native/build.py``.

An installation does it by itself, so this module imports Python's library alone; nothing is ever
compiled while Partita runs. With ``pip install ziglang``, ``--wheels FOLDER`` makes the wheels of
every platform.
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
ROOT = FOLDER.parents[1]
SOURCES = (FOLDER / "sound.c", FOLDER / "layers.c", ROOT / "prior" / "native" / "frame.c")
HEADER = FOLDER / "vectors.h"
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
        return "native-" + "-".join(filter(None, parts)) + SUFFIXES[self.system]


def x86_builds(system: str, target: str) -> tuple[Build, Build]:
    """Return both builds for a system on x86-64, the faster one first."""
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
    """Return the builds that this system and machine could load, whatever the processor knows."""
    system = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return [build for build in BUILDS if (build.system, build.machine) == (system, machine)]


WHEELS = {
    "manylinux_2_17_x86_64": ("linux", "x86_64"),
    "manylinux_2_17_aarch64": ("linux", "aarch64"),
    "macosx_11_0_arm64": ("macos", "aarch64"),
    "win_amd64": ("windows", "x86_64"),
}
"""Platform tags of the wheels, and system and machine of their builds."""


def builds_for_wheel(platform_tag: str | None) -> list[Build]:
    """Return the builds that a wheel carries; with None those of this machine."""
    if platform_tag is None:
        return builds_for_this_machine()
    return [build for build in BUILDS if (build.system, build.machine) == WHEELS[platform_tag]]


def digest_source() -> int:
    """Return a digest of the C files in 64 bits, which every library made from them knows."""
    content = b"".join(path.read_bytes() for path in (*SOURCES, HEADER))
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def find_compiler() -> list[str] | None:
    """Return the command of a C compiler: ``$CC``, the system's, or the ``ziglang`` package."""
    for name in (os.environ.get("CC", "cc"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    return find_zig()


def needed_compilers() -> list[str]:
    """Return what an installation needs to compile: nothing, or a packaged compiler."""
    return ["ziglang"] if builds_for_this_machine() and find_compiler() is None else []


def find_zig() -> list[str] | None:
    """Return the command of the C compiler in the ``ziglang`` package, or None."""
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
    command = [*compiler, *FLAGS, *flags, *position, defined, "-shared", f"-I{FOLDER}"]
    command += [*map(str, SOURCES), "-o", str(partial), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_suffix(".lib").unlink(missing_ok=True)  # for linkers of Windows
        (folder / "sound.lib").unlink(missing_ok=True)
    return target


def build_here() -> list[Path]:
    """Compile this machine's libraries where a compiler is found; say on standard error if not."""
    compiler = find_compiler()
    builds = builds_for_this_machine()
    if compiler is None or not builds:
        missing = "no C compiler" if builds else f"no build for {platform.machine()}"
        print(f"C code not built ({missing}): PyTorch runs in its place, slower", file=sys.stderr)
        return []
    built = []
    for build in builds:
        try:
            built.append(compile_library(build, compiler))
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace")
            print(f"{build.file_name} not built: {said.strip()}", file=sys.stderr)
    return built


def build_wheels(folder: Path) -> None:
    """Compile every build with ``ziglang`` and make a wheel of each platform.

    Raises:
        FileNotFoundError: ``ziglang`` is not installed.
        subprocess.CalledProcessError: a compiler or pip failed.
    """
    zig = find_zig()
    if zig is None:
        raise FileNotFoundError("--wheels needs `pip install ziglang`")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder)]
    for platform_tag in WHEELS:
        for build in builds_for_wheel(platform_tag):
            print(compile_library(build, zig), flush=True)
        environment = os.environ | {"PARTITA_WHEEL_PLATFORM": platform_tag}
        subprocess.run([*pip, str(ROOT)], check=True, env=environment)


def main() -> int:
    """Compile for this machine, or make wheels for all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="make every platform's wheel")
    folder = parser.parse_args().wheels
    if folder is None:
        built = build_here()
        print("\n".join(map(str, built)))
        return 0 if built else 1
    try:
        build_wheels(folder)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        print(f"error: {' '.join(map(str, error.cmd))} failed\n{said}".strip(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
