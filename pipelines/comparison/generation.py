"""Writing: frames per second and size of the state as the piece grows."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from codec.process_settings import matmul_precision
from codec.seeds import generator
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.row import Plot, Row, Series, Table, number
from pipelines.comparison.spread import show
from pipelines.comparison.study import Study, seconds
from prior.attention import KeyValueCache
from prior.condition import Condition
from prior.model import Prior
from prior.state import PriorState


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.generation
    row = Row(
        "generation",
        "Generation: frames per second and state as the piece grows",
        f"Priors of about {study.settings.parameters:,} parameters and random weights, one piece, "
        f"no guidance: after so many frames {settings.frames} more are written, "
        f"{settings.repeats} times. The state is what one piece keeps between two frames: keys and "
        "values of the frames so far, and the cell; weights are shared by all pieces.",
    )
    speeds: dict[str, list[list[float]]] = {}
    sizes: dict[str, list[int]] = {}
    weights: dict[str, int] = {}
    for name, fields in study.settings.backbones.items():
        study.say(f"generation: {name}")
        config = fit_width(
            study.settings.model | fields, study.settings.parameters, study.settings.tolerance
        )
        torch.manual_seed(0)
        prior = Prior(**config).eval().to(study.device)
        weights[name] = sum(p.numel() * p.element_size() for p in prior.parameters())
        with matmul_precision("highest"):
            measured = [grown(prior, position, study) for position in settings.positions]
        speeds[name] = [speed for speed, _ in measured]
        sizes[name] = [size for _, size in measured]
    row.tables = [table(study, speeds, sizes), weight_table(weights)]
    row.plots = plots(study, speeds, sizes)
    row.reading = reading(study, speeds, sizes)
    return row


@torch.inference_mode()
def grown(prior: Prior, position: int, study: Study) -> tuple[list[float], int]:
    """Frames per second after ``position`` frames, run by run, and the state's bytes there."""
    settings = study.settings.generation
    shape = (1, prior.num_codebooks, position)
    codes = torch.randint(prior.codebook_size, shape, generator=generator(0, "grown", position))
    nothing = Condition.empty(1, prior.config["text_width"], prior.device)
    speeds, size = [], 0
    for _ in range(settings.repeats):
        state = prior.init_state(nothing, position + settings.frames + 1)
        hidden = prior.prefill(codes.to(prior.device), state)
        size = state_bytes(state)
        start = time.perf_counter()
        for _ in range(settings.frames):
            frame = prior.sample_frame(hidden, likeliest)
            hidden = prior.decode_one_frame(frame, state)
        speeds.append(settings.frames / (time.perf_counter() - start))
    return speeds, size


def likeliest(logits: Tensor, book: int) -> Tensor:
    """The likeliest code that is not the end of the piece."""
    return (logits[:, :-1] if book == 0 else logits).argmax(-1)


def state_bytes(state: PriorState) -> int:
    """Bytes that the frames so far fill, whatever has been allocated for later ones."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(state))


def state_tensors(state: PriorState) -> Iterator[Tensor]:
    """Everything a state keeps of the frames so far."""
    for layer in state.layers:
        history: KeyValueCache = layer.history
        if history.keys.numel():
            seen = min(state.position, history.capacity)
            yield history.keys[:, :, :seen]
            yield history.values[:, :, :seen]
        yield from layer.hidden or ()


def table(study: Study, speeds: dict[str, list[list[float]]], sizes: dict[str, list[int]]) -> Table:
    """Speed and state per position."""
    names = [*speeds]
    columns = ["frames so far", *(f"{name} (frames/s)" for name in names)]
    columns += [f"{name} (state, kB)" for name in names]
    rows = []
    for index, position in enumerate(study.settings.generation.positions):
        cells = [show(speeds[name][index]) for name in names]
        cells += [number(sizes[name][index] / 1e3) for name in names]
        rows.append([f"{position} ({number(seconds(position))} s)", *cells])
    return Table(columns, rows)


def weight_table(weights: dict[str, int]) -> Table:
    """Float32 weights."""
    return Table(
        ["backbone", "weights (MB)"],
        [[name, number(size / 1e6)] for name, size in weights.items()],
    )


def plots(
    study: Study, speeds: dict[str, list[list[float]]], sizes: dict[str, list[int]]
) -> list[Plot]:
    """Speed and state over the frames so far."""
    x = [float(position) for position in study.settings.generation.positions]
    fast = {
        name: Series(x, [sum(v) / len(v) for v in found], [min(v) for v in found],
                     [max(v) for v in found])
        for name, found in speeds.items()
    }  # fmt: skip
    large = {name: Series(x, [size / 1e3 for size in found]) for name, found in sizes.items()}
    return [
        Plot("generation-speed", "Writing speed", "frames so far", "frames per second", fast),
        Plot("generation-state", "State of one piece", "frames so far", "kilobytes", large),
    ]


def reading(
    study: Study, speeds: dict[str, list[list[float]]], sizes: dict[str, list[int]]
) -> list[str]:
    """What grows, and who is faster at the end where the runs do not overlap."""
    first, last = study.settings.generation.positions[0], study.settings.generation.positions[-1]
    sentences = []
    for name in study.compared:
        growth = sizes[name][-1] / sizes[name][0]
        change = sum(speeds[name][-1]) / sum(speeds[name][0])
        sentences.append(
            f"From {first} to {last} frames the {name}'s state grows {number(growth)} times and "
            f"its speed changes to {change:.0%}."
        )
    ours, theirs = (speeds[name][-1] for name in study.compared)
    if min(ours) > max(theirs) or min(theirs) > max(ours):
        faster = study.compared[0] if min(ours) > max(theirs) else study.compared[1]
        ratio = max(sum(ours), sum(theirs)) / min(sum(ours), sum(theirs))
        sentences.append(f"After {last} frames **{faster}** writes {ratio:.1f} times as fast.")
    else:
        sentences.append(f"After {last} frames the runs of both overlap.")
    return sentences
