"""Measure in how many pieces the leading instrument is still heard after a codec."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm

from codec.seeds import derive_seed
from pipelines.data.scores.instruments import FAMILIES
from pipelines.data.scores.score_sound import SAMPLE_RATE
from pipelines.data.shards import evenly_spaced
from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import FAMILY_OF, load_detectors
from pipelines.evaluation.ground_truth import compose_wanted, render_score
from pipelines.evaluation.prompts import read_prompts
from pipelines.evaluation.systems import System

PIECE_S = 10.0


class RenderedPiece(NamedTuple):
    """Hold a rendered piece, (2, S) at 44,100 Hz, and the instrument that plays its tune."""

    audio: Tensor
    instrument: str


def rendered_pieces(count: int, quiet: bool = False) -> list[RenderedPiece]:
    """Render pieces with the facts of prompts that name an instrument.

    A piece in which the detectors do not hear its instrument, first of its family, is left out.

    Args:
        count: of the prompts, evenly spaced among all of them.
        quiet: show no progress.

    Raises:
        MissingPackageError: FluidSynth or the soundfont is not installed.
    """
    naming = [prompt for prompt in read_prompts() if prompt.wanted.instrument is not None]
    pieces = []
    for index in tqdm(evenly_spaced(naming, count), desc="pieces", unit="piece", disable=quiet):
        prompt = naming[index]
        assert prompt.wanted.instrument is not None
        seed = derive_seed(0, "ground truth of", prompt.id)
        try:
            audio = render_score(compose_wanted(prompt.wanted, seed), PIECE_S)
        except UnmeasurableError:
            continue
        piece = RenderedPiece(audio, prompt.wanted.instrument)
        if hears_instrument(piece.audio, piece.instrument):
            pieces.append(piece)
    return pieces


def hears_instrument(audio: Tensor, instrument: str) -> bool:
    """Tell whether detectors hear an instrument as the likeliest of its family, in (2, S) audio."""
    try:
        detected = load_detectors().detect(audio, SAMPLE_RATE)
    except UnmeasurableError:
        return False
    return detected.lead_among(FAMILIES[FAMILY_OF[instrument]]) == instrument


def instrument_values(system: System, pieces: Sequence[RenderedPiece]) -> dict[str, float | str]:
    """Measure a system: the share of pieces whose instrument is still heard, or why not."""
    try:
        kept = [
            hears_instrument(system.reconstruct(piece.audio, SAMPLE_RATE)[0], piece.instrument)
            for piece in pieces
        ]
    except (MissingPackageError, UnmeasurableError) as reason:
        return {"instruments_kept": str(reason)}
    return {"instruments_kept": sum(kept) / len(kept)} if kept else {}
