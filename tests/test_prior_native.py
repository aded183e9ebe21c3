"""The native step against PyTorch's: codes, states, weights that change, and where it refuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_prior import some_codes, some_text, tiny_prior
from torch import nn

from codec.native.build import builds_for_this_machine, compile_library, digest_source, find_zig
from codec.native.library import Library, NativeError, open_library, runs_here
from prior import Condition, Prior
from prior.frame_generator import FrameGenerator
from prior.native.packing import PackedPrior, check_prior
from prior.native.step import NativeStep, describe_step
from prior.next_frame import next_frame
from prior.sampling import Sampling

HALF_EXACT = {"width": 128, "num_heads": 2, "depth_width": 64, "depth_heads": 1}
ODD = {"width": 36, "num_heads": 2, "depth_width": 20, "depth_heads": 4, "codebook_size": 70}


def halved(prior: Prior) -> Prior:
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(parameter.half())
    return prior


def generator(
    prior: Prior, library: Library | None, num_frames: int = 40, rows: int = 1, **settings
) -> FrameGenerator:
    """A generator with the native step of a library, or with PyTorch's."""
    sampling = Sampling(**({"top_k": 8, "guidance": 2.0} | settings))
    frames = FrameGenerator(
        prior, some_text(rows), None, num_frames, sampling, [3, 1, 4, 1, 5][:rows], min_frames=9
    )
    frames.next_frame = NativeStep(prior, library) if library else next_frame
    return frames


@pytest.fixture(autouse=True)
def with_packages(measuring_packages: None) -> None:
    """Import what torch imports with its first printed or compared tensor."""


def written(frames: FrameGenerator) -> list[list[int]]:
    return [frame.codes.flatten().tolist() for frame in frames]


@pytest.mark.parametrize(
    "sizes",
    [{}, {"num_codebooks": 1}, HALF_EXACT, ODD, {"sliding_window": 1}, {"sliding_window": 17}],
    ids=str,
)
def test_codes_are_those_of_pytorch_beyond_the_window(library: Library, sizes):
    prior = tiny_prior("transformer", **{"sliding_window": 24, **sizes})
    prior = halved(prior) if sizes == HALF_EXACT else prior
    assert written(generator(prior, library, 70)) == written(generator(prior, None, 70))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"guidance": 1.0},
        {"guidance": 0.3, "top_k": None},
        {"top_k": 1},
        {"top_k": None, "top_p": 0.6},
        {"top_k": 5, "top_p": 0.9, "temperature": 1.7},
        {"fine_temperature": 0.2, "top_p": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [1, 5])
def test_every_setting_of_the_sampling(library: Library, settings, rows: int):
    prior = tiny_prior("transformer", codebook_size=40)
    native = written(generator(prior, library, rows=rows, **settings))
    assert native == written(generator(prior, None, rows=rows, **settings))


def test_a_row_does_not_depend_on_those_beside_it(library: Library):
    prior = tiny_prior("transformer", num_codebooks=2)
    text, seeds, sampling = some_text(5), [3, 1, 4, 1, 5], Sampling(top_k=8, guidance=2.0)
    written_rows = []
    for rows in (5, 1):
        first = Condition(text.text_states[:rows], text.text_mask[:rows])
        frames = FrameGenerator(prior, first, None, 40, sampling, seeds[:rows])
        frames.next_frame = NativeStep(prior, library)
        written_rows.append([frame.codes[0].tolist() for frame in frames])
    assert written_rows[0] == written_rows[1]


@pytest.mark.parametrize("native_first", [True, False])
def test_a_saved_state_goes_on_with_the_other_step(library: Library, native_first: bool):
    prior = tiny_prior("transformer", sliding_window=8)
    expected = written(generator(prior, None, 30))
    for at in (3, 12):  # before the ring is full, and after
        begun = generator(prior, library if native_first else None, 30)
        codes = [next(begun).codes.flatten().tolist() for _ in range(at)]
        resumed = generator(prior, None if native_first else library, 30)
        resumed.load_state_dict(begun.state_dict())
        assert codes + written(resumed) == expected


def test_steps_may_change_from_frame_to_frame(library: Library):
    prior = tiny_prior("transformer", sliding_window=8)
    mixed, steps = generator(prior, library), [NativeStep(prior, library), next_frame]
    codes = []
    for index, frame in enumerate(mixed):
        mixed.next_frame = steps[index % 2]
        codes.append(frame.codes.flatten().tolist())
    assert codes == written(generator(prior, None))


def test_steering(library: Library):
    prior = tiny_prior("transformer")
    codes = []
    for chosen in (library, None):
        frames = generator(prior, chosen)
        codes.append([next(frames).codes.flatten().tolist() for _ in range(10)])
        frames.steer(some_text(1, num_tokens=9, seed=5), None)
        codes[-1] += written(frames)
    assert codes[0] == codes[1]


CHANGES = {
    "in place": lambda prior: prior.first_head.weight.detach().neg_(),
    "through data": lambda prior: prior.first_head.weight.data.neg_(),
    "another parameter": lambda prior: setattr(
        prior.first_head, "weight", nn.Parameter(-prior.first_head.weight)
    ),
    "load_state_dict": lambda prior: prior.load_state_dict(
        {name: -tensor for name, tensor in prior.state_dict().items()}
    ),
    "half and back": lambda prior: prior.to(torch.float16).to(torch.float32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(library: Library, change: str):
    prior = tiny_prior("transformer")
    before = written(generator(prior, library))
    CHANGES[change](prior)
    after = written(generator(prior, library))
    assert after == written(generator(prior, None))
    assert (after == before) == (change == "half and back")


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "through data"])
def test_weights_may_change_between_two_frames(library: Library, change: str):
    codes = []
    for chosen in (library, None):
        prior = tiny_prior("transformer")
        frames = generator(prior, chosen)
        codes.append([next(frames).codes.flatten().tolist() for _ in range(5)])
        CHANGES[change](prior)
        codes[-1] += written(frames)
    assert codes[0] == codes[1]


def hooked(prior: Prior) -> Prior:
    prior.network.blocks[0].attention.qkv.register_forward_hook(lambda *_: None)
    return prior


def adapted(prior: Prior) -> Prior:
    class Adapted(nn.Linear):
        pass

    prior.network.blocks[0].attention.qkv = Adapted(32, 96, bias=False)
    return prior


REFUSED = {
    "backbone lstm": lambda prior: tiny_prior("lstm").eval(),
    "training mode": lambda prior: prior.train(),
    "bfloat16": lambda prior: prior.to(torch.bfloat16),
    "qkv is changed": hooked,
    r"is changed \(Adapted\)": adapted,
    "on meta": lambda prior: prior.to("meta"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_it_does_not_know_is_left_to_pytorch(library: Library, reason: str):
    prior = REFUSED[reason](tiny_prior("transformer"))
    with pytest.raises(NativeError, match=reason):
        check_prior(prior)
    if reason != "on meta":
        assert len(list(generator(prior, library, 12))) == 12


def test_under_autocast_pytorch_runs(library: Library):
    prior = tiny_prior("transformer")
    with torch.autocast("cpu", torch.bfloat16):
        native, plain = written(generator(prior, library)), written(generator(prior, None))
    assert native == plain


@pytest.mark.parametrize("name", ["last", "position", "0.keys", "1.values"])
def test_a_damaged_state_is_refused(library: Library, name: str):
    prior = tiny_prior("transformer", sliding_window=8)
    begun = generator(prior, library)
    for _ in range(4):
        next(begun)
    state = begun.state_dict()
    state[name] = {
        "last": torch.full_like(state["last"], 11),
        "position": torch.tensor(-3),
        "0.keys": state["0.keys"][:1],
        "1.values": state["1.values"][..., :2],
    }[name]
    with pytest.raises((ValueError, RuntimeError)):
        continue_from(generator(prior, library), state)


def continue_from(frames: FrameGenerator, state: dict[str, torch.Tensor]) -> None:
    frames.load_state_dict(state)
    next(frames)


def test_weights_are_halved_only_where_that_is_exact(library: Library):
    prior = halved(tiny_prior("transformer"))
    exact = PackedPrior(prior, library).top
    with torch.no_grad():
        prior.first_head.weight[0, 0] = 0.1
    assert PackedPrior(prior, library).top > exact


def test_a_prompt_is_continued(library: Library):
    prior, sampling = tiny_prior("transformer", sliding_window=8), Sampling(top_k=8)
    codes = []
    for step in (NativeStep(prior, library), next_frame):
        prompt = some_codes(prior, 1, 13)
        frames = FrameGenerator(prior, some_text(1), None, 9, sampling, [0], prompt)
        frames.next_frame = step
        codes.append(written(frames))
    assert codes[0] == codes[1]


def test_a_damaged_or_foreign_library_is_refused(library: Library, tmp_path: Path):
    build = next(build for build in builds_for_this_machine() if runs_here(build))
    whole, digest = Path(library.functions._name).read_bytes(), digest_source()
    contents = [b"", whole[:64], b"MZ" + whole[2:]]
    if build.machine == "x86_64":
        contents.append(whole.replace(digest.to_bytes(8, "little"), bytes(8)))
    for number, content in enumerate(contents):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / build.file_name).write_bytes(content)
        with pytest.raises((OSError, NativeError)):
            open_library(build, folder)


def test_the_step_is_described():
    assert "backbone lstm" in describe_step(tiny_prior("lstm"))
    assert describe_step(tiny_prior("transformer")).startswith(("native (", "PyTorch's ("))


@pytest.mark.slow
def test_ziglang_compiles_it_as_well(tmp_path: Path):
    zig = find_zig()
    if zig is None:
        pytest.skip("needs ziglang")
    build = next(build for build in builds_for_this_machine() if runs_here(build))
    compile_library(build, zig, tmp_path)
    prior = tiny_prior("transformer", sliding_window=8)
    native = written(generator(prior, open_library(build, tmp_path)))
    assert native == written(generator(prior, None))


SANITIZED = """
import sys
from pathlib import Path
import torch
from codec.native import inner_loops
from codec.phase import starting_phases
from decoder.diffusion_decoder import Block, rotary_table
from tiny_prior import some_text, tiny_prior
from prior.frame_generator import FrameGenerator
from codec.native.build import builds_for_this_machine
from codec.native.library import open_library, runs_here
from prior.native.step import NativeStep
from prior.sampling import Sampling

build = next(build for build in builds_for_this_machine() if runs_here(build))
library = open_library(build, Path(sys.argv[1]))
smallest = {"num_codebooks": 1, "codebook_size": 1, "width": 2, "num_heads": 1, "num_layers": 1}
smallest |= {"sliding_window": 1}
largest = {"num_codebooks": 5, "codebook_size": 1030, "width": 384, "num_heads": 6}
largest |= {"depth_width": 512, "depth_heads": 8, "sliding_window": 33}
odd = {"width": 36, "num_heads": 2, "depth_width": 20, "depth_heads": 4, "codebook_size": 70}
for sizes in (smallest, largest, odd):
    for rows in (1, 7):
        for sampling in (Sampling(), Sampling(top_k=2, top_p=0.5, guidance=1.0)):
            prior = tiny_prior("transformer", **sizes)
            text = some_text(rows)
            frames = FrameGenerator(prior, text, None, 40, sampling, [*range(rows)], min_frames=40)
            frames.next_frame = NativeStep(prior, library)
            assert len(list(frames)) == 40

inner_loops.load_library = lambda: library
for bins, frames in ((2, 1), (33, 7), (1025, 66)):
    magnitude = torch.rand(2, frames, bins)
    phase = torch.rand(2, bins)
    sizes = {"n_fft": 2 * bins - 2, "hop_length": 1 + bins // 5}
    found = starting_phases(magnitude, magnitude[:, 0], phase, phase, 3, **sizes)
    found = inner_loops.normalize_complex(inner_loops.scale_complex(found, magnitude))
    frames = torch.fft.irfft(found, n=sizes["n_fft"])
    inner_loops.fold(frames, torch.rand(frames.shape[-1]), sizes["hop_length"])
for width, heads in ((4, 2), (36, 3), (256, 4)):
    with torch.no_grad():
        Block(width, heads)(torch.rand(2, 5, width), torch.rand(6, 1, 1, width), rotary_table(
            5, 1, width // heads, torch.device("cpu")))
print("clean")
"""


@pytest.mark.slow
def test_the_sanitizers_find_nothing(tmp_path: Path):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    build = next(build for build in builds_for_this_machine() if runs_here(build))
    compile_library(build, [gcc, "-fsanitize=address,undefined", "-g"], tmp_path)
    preloaded = subprocess.run(
        [gcc, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    environment = os.environ | {
        "LD_PRELOAD": preloaded.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
        "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1]))),
    }
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "clean", done.stderr[-3000:]
