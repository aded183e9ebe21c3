"""The ladder: every rung trained with one budget, and what each step buys."""

import numpy as np

from pipelines.commands.estimate import count_parameters
from pipelines.comparison.arm import Arm, TrainedArm
from pipelines.comparison.nats import held_out_bits
from pipelines.comparison.pieces import Piece
from pipelines.comparison.row import Plot, Row, Series, Table
from pipelines.comparison.settings import Rung
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study
from pipelines.data.tokens import read_token_info

NOTES = "NoteTokenizer"


def arms(study: Study) -> dict[str, list[Arm]]:
    """The arms of every rung that is there."""
    rungs, _ = study.rungs()
    return {rung.name: study.rung_arms(rung) for rung in rungs}


def measure(study: Study) -> Row:
    """The row of the study."""
    budget = study.settings.ladder_budget
    row = Row(
        "ladder",
        "The ladder",
        f"Every rung is a prior of about {study.settings.parameters:,} parameters trained for "
        f"{budget.steps} updates of {budget.batch_size} crops of up to {budget.crop_frames} "
        "positions. Held-out bits are given per position (a note, or a frame of audio tokens) and "
        "per second of music. Bits compare rungs that write the same codes; notes and audio tokens "
        "do not carry the same things, so their bits compare no quality.",
    )
    rungs, row.missing = study.rungs()
    rows = []
    finals: dict[str, list[np.ndarray]] = {}
    curves: dict[str, Series] = {}
    for rung in rungs:
        trained = [study.train(arm) for arm in study.rung_arms(rung)]
        pieces = study.validation(rung.tokens)
        finals[rung.name] = [bits_of(study, one, pieces) for one in trained]
        curves[rung.name] = mean_curve(trained)
        rows.append(rung_cells(rung, trained, finals[rung.name], pieces))
    columns = ["rung", "parameters", "codes", "bits per position", "bits per second", "seeds"]
    row.tables = [Table(columns, rows)]
    if curves:
        row.plots = [
            Plot("ladder", "Held-out loss in training", "updates", "nats per code", curves)
        ]
    row.reading = comparisons(rungs, finals)
    return row


def bits_of(study: Study, one: TrainedArm, pieces: list[Piece]) -> np.ndarray:
    """Held-out bits per position of one arm, book by book."""
    prior = one.prior.to(study.device)
    codes = [piece.codes for piece in pieces]
    return held_out_bits(prior, codes, one.arm.budget.crop_frames)


def rung_cells(
    rung: Rung, trained: list[TrainedArm], books: list[np.ndarray], pieces: list[Piece]
) -> list[str]:
    """A line of the table."""
    model = trained[0].arm.model
    bits = [float(book.sum()) for book in books]
    rate = positions_per_s(rung, pieces)
    per_second = show([value * rate for value in bits]) if rate else "no clock in the codes"
    return [
        rung.name,
        f"{count_parameters('prior', model):,}",
        f"{model['num_codebooks']} x {model['codebook_size']}",
        show(bits),
        per_second,
        f"{len(bits)}",
    ]


def positions_per_s(rung: Rung, pieces: list[Piece]) -> float | None:
    """Positions per second of music: the caches' frame rate, or the notes' own clock."""
    info = read_token_info(rung.tokens[0])
    if info.codec_class != NOTES:
        return info.frame_rate
    seconds = [note_seconds(piece) for piece in pieces]
    if not all(seconds):
        return None
    return sum(piece.codes.shape[1] for piece in pieces) / sum(filter(None, seconds))


def note_seconds(piece: Piece) -> float | None:
    """How long the notes of a piece take, by ``NoteTokenizer.shift_s``."""
    import torch

    from pipelines.data.notes.note_tokenizer import NoteTokenizer

    codes = torch.from_numpy(piece.codes.astype(np.int64))
    return float(NoteTokenizer().shift_s(codes.T).sum()) or None


def mean_curve(trained: list[TrainedArm]) -> Series:
    """Held-out nats per code along the training, mean and range over seeds."""
    losses = np.asarray([one.curve.loss for one in trained])
    steps = [float(step) for step in trained[0].curve.step]
    low, high = losses.min(0).tolist(), losses.max(0).tolist()
    return Series(steps, losses.mean(0).tolist(), low, high)


def comparisons(rungs: list[Rung], finals: dict[str, list[np.ndarray]]) -> list[str]:
    """Every rung with the one that it is compared with, on the books that both write."""
    by_name = {rung.name: rung for rung in rungs}
    sentences = []
    for after in rungs:
        before = by_name.get(after.against or "")
        if before is None:
            continue
        if before.tokens != after.tokens:
            sentences.append(
                f"{after.name} writes other codes than {before.name}: their bits do not compare."
            )
            continue
        books = min(len(finals[rung.name][0]) for rung in (before, after))
        bits = {
            rung.name: [float(seed[:books].sum()) for seed in finals[rung.name]]
            for rung in (before, after)
        }
        what = f"Held-out loss on {books} book{'s' if books > 1 else ''}"
        sentences.append(verdict(what, bits, "bits per position"))
    return sentences


def pairs(study: Study) -> list[tuple[Rung, Rung]]:
    """Rungs that are compared and write the same books of the same codes."""
    rungs = {rung.name: rung for rung in study.rungs()[0]}
    found = []
    for after in rungs.values():
        before = rungs.get(after.against or "")
        if before is not None and written(study, before) == written(study, after):
            found.append((before, after))
    return found


def written(study: Study, rung: Rung) -> tuple[list[str], int]:
    """Caches and number of books."""
    return rung.tokens, study.model(rung.model, rung.tokens)["num_codebooks"]
