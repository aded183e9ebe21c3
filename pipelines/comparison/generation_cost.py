"""Measure frames per second and size of the state as a generated piece grows."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from codec.process_settings import matmul_precision
from codec.seeds import generator
from pipelines.comparison.comparison_row import ComparisonRow, Plot, Series
from pipelines.comparison.comparison_settings import TOKEN_RATE
from pipelines.comparison.spread import number, show
from pipelines.comparison.study import Study
from pipelines.data.markdown import table
from prior.condition import Condition
from prior.model import Prior
from prior.state import PriorState

Speeds = dict[str, list[list[float]]]  # backbone -> position -> frames per second, run by run
Sizes = dict[str, list[int]]  # backbone -> position -> bytes


def measure(study: Study) -> ComparisonRow:
    """Measure speed and state of every backbone after so many frames."""
    settings = study.settings.generation
    row = ComparisonRow(
        "Generation: frames per second and state as the piece grows",
        f"Priors of about {study.settings.parameters:,} parameters and random weights, one piece, "
        f"no guidance: after so many frames {settings.frames} more are generated, "
        f"{settings.repeats} times. The state is what one piece keeps between two frames: keys and "
        "values of the frames so far, and the LSTM's cell; weights are shared by all pieces.",
    )
    speeds: Speeds = {}
    sizes: Sizes = {}
    weights: dict[str, int] = {}
    for name, config in study.sized_backbones().items():
        study.say(f"generation: {name}")
        torch.manual_seed(0)
        prior = Prior(**config).eval().to(study.device)
        weights[name] = sum(parameter.nbytes for parameter in prior.parameters())
        with matmul_precision("highest"):
            measured = [time_frames(prior, position, study) for position in settings.positions]
        speeds[name] = [speed for speed, _ in measured]
        sizes[name] = [size for _, size in measured]
    row.tables = [
        cost_table(settings.positions, speeds, sizes),
        table(
            ["backbone", "weights (MB)"], [[n, number(size / 1e6)] for n, size in weights.items()]
        ),
    ]
    row.plots = plots(settings.positions, speeds, sizes)
    return row


@torch.inference_mode()
def time_frames(prior: Prior, position: int, study: Study) -> tuple[list[float], int]:
    """Measure frames per second after ``position`` frames, run by run, and the state's bytes."""
    settings = study.settings.generation
    shape = (1, prior.num_codebooks, position)
    codes = torch.randint(prior.codebook_size, shape, generator=generator(0, "grown", position))
    condition = Condition.empty(1, prior.config.text_width, prior.device)
    speeds, size = [], 0
    for _ in range(settings.repeats):
        state = prior.init_state(condition, position + settings.frames + 1)
        hidden = prior.prefill(codes.to(prior.device), state)
        size = state_bytes(state)
        start = time.perf_counter()
        for _ in range(settings.frames):
            frame = prior.sample_frame(hidden, choose_likeliest)
            hidden = prior.decode_one_frame(frame, state)
        speeds.append(settings.frames / (time.perf_counter() - start))
    return speeds, size


def choose_likeliest(logits: Tensor, codebook: int) -> Tensor:
    """Choose the likeliest code that is not the end of the piece."""
    return (logits[:, :-1] if codebook == 0 else logits).argmax(-1)


def state_bytes(state: PriorState) -> int:
    """Count the bytes that the frames so far fill, whatever is allocated for later ones."""
    return sum(tensor.nbytes for tensor in filled_tensors(state))


def filled_tensors(state: PriorState) -> Iterator[Tensor]:
    """Yield everything that a state keeps of the frames so far."""
    for layer in state.layers:
        history = layer.history
        if history.keys.numel():
            seen = min(state.position, history.capacity)
            yield history.keys[:, :, :seen]
            yield history.values[:, :, :seen]
        yield from layer.hidden or ()


def cost_table(positions: list[int], speeds: Speeds, sizes: Sizes) -> str:
    """Print speed and state per position."""
    columns = ["frames so far", *(f"{name} (frames/s)" for name in speeds)]
    columns += [f"{name} (state, kB)" for name in sizes]
    rows = []
    for index, position in enumerate(positions):
        cells = [show(found[index]) for found in speeds.values()]
        cells += [number(found[index] / 1e3) for found in sizes.values()]
        rows.append([f"{position} ({number(position / TOKEN_RATE)} s)", *cells])
    return table(columns, rows)


def plots(positions: list[int], speeds: Speeds, sizes: Sizes) -> list[Plot]:
    """Plot speed and state over the frames so far."""
    fast = {
        name: Series(positions, np.mean(found, 1), np.min(found, 1), np.max(found, 1))
        for name, found in speeds.items()
    }
    large = {name: Series(positions, np.divide(found, 1e3)) for name, found in sizes.items()}
    return [
        Plot("generation-speed", "Generation speed", "frames so far", "frames per second", fast),
        Plot("generation-state", "State of one piece", "frames so far", "kilobytes", large),
    ]
