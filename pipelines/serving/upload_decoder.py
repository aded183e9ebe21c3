"""Decodes an uploaded file in a process of its own, with limits, which may die without harm."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

MEMORY_BYTES = 4 << 30
CPU_S = 60
DECODE_S = 600


def decode_upload(
    source: Path, target: Path, sample_rate: int, channels: int, longest_s: float
) -> dict[str, Any] | None:
    """Turn any audio that libsndfile reads into a WAV of 32-bit floats, and estimate its plan.

    Returns:
        The plan's JSON; None where there is no beat, or less than 3 s.

    Raises:
        ValueError: it is not audio, too long, or more than the process may spend on it.
    """
    command = [sys.executable, "-m", "pipelines.serving.upload_decoder", str(source), str(target)]
    numbers = [str(sample_rate), str(channels), str(longest_s)]
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            [*command, *numbers],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=DECODE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("the file takes too long to decode") from error
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines() if done.returncode == 2 else []
        raise ValueError(lines[-1] if lines else "the file cannot be decoded")
    return json.loads(done.stdout.splitlines()[-1])


def main(source: str, target: str, sample_rate: str, channels: str, longest_s: str) -> int:
    """Be that process, which leaves the processor to streams."""
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    import warnings

    import soundfile

    from codec.audio_file import read_audio
    from pipelines.evaluation.clip_checks import UnmeasurableError
    from pipelines.evaluation.plan_estimation import estimate_plan
    from pipelines.inference.plan_schema import plan_json

    warnings.simplefilter("ignore")
    try:
        info = soundfile.info(source)
        if info.duration > float(longest_s):
            raise ValueError(f"the file must last at most {float(longest_s):g} s")
        clip = read_audio(source, sample_rate=int(sample_rate), channels=int(channels))
        soundfile.write(target, clip.audio.T.numpy(), int(sample_rate), "FLOAT", format="WAV")
        plan = None
        with contextlib.suppress(UnmeasurableError):
            plan = plan_json(estimate_plan(clip.audio, clip.sample_rate))
        print(json.dumps(plan))
    except soundfile.LibsndfileError as error:
        print(f"the file is not audio: {error.error_string}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(str(error).replace(source, "the file"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
