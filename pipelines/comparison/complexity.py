"""Complexity: held-out loss and generated music for solo, duo and band."""

import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import write_audio
from pipelines.comparison.adherence import FACTS, kept
from pipelines.comparison.arm import TrainedArm
from pipelines.comparison.hearing import Hearing, hearing_of
from pipelines.comparison.ladder import pairs
from pipelines.comparison.nats import held_out_bits
from pipelines.comparison.pieces import Piece
from pipelines.comparison.row import Row, Table, number
from pipelines.comparison.settings import Rung
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study
from pipelines.errors import MissingPackageError
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.frechet import equal_windows, frechet_distance
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.inference.text import encode_text, load_text_encoder
from prior.frame_generator import FrameGenerator
from prior.sampling import Sampling

ENSEMBLES = ("solo", "duo", "band")
SPACES = ("logmel_statistics", "aisfx")
REFERENCE = "held-out codes"


@dataclass
class Heard:
    """What some clips sound like: embeddings per space, and what was kept of the labels."""

    vectors: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.complexity
    row = Row(
        "complexity",
        "Complexity: solo, duo, full band",
        "The ladder's arms on held-out pieces by their labels. Generated: "
        f"{settings.clips} clips of {settings.frames} positions per ensemble and seed, with the "
        "held-out clips' captions as prompts. Fréchet distances are to the held-out codes of the "
        "same ensemble heard the same way, so that they measure the prior alone; few windows bias "
        "them upwards, equally for all rows. The share of clips that keep what their labels name "
        "is judged by the detectors of `partita evaluate pipeline`: tempo within 4 %, or half or "
        "double of it; the exact key; the leading instrument among its family; drums or none. What "
        "the same detectors say of the held-out codes is the ceiling.",
    )
    row.tables = [loss_table(study, row)]
    generated = Table(
        ["rung", "ensemble", *(f"Fréchet, {space}" for space in SPACES), *FACTS, "clips"], []
    )
    for rung in [rung for rung in study.rungs()[0] if rung.heard]:
        try:
            generated.rows.extend(heard_rows(study, rung, row))
        except (MissingPackageError, UnmeasurableError) as reason:
            row.missing.append(f"{rung.name}, generated music: {reason}")
    row.tables.append(generated)
    return row


def loss_table(study: Study, row: Row) -> Table:
    """Held-out bits per position of every rung on every ensemble, and who is ahead."""
    rungs, _ = study.rungs()
    rows, bits = [], {}
    for rung in rungs:
        pieces = study.validation(rung.tokens)
        trained = [study.train(arm) for arm in study.rung_arms(rung)]
        for name in ENSEMBLES:
            chosen = [piece.codes for piece in pieces if piece.ensemble == name]
            if chosen:
                bits[rung.name, name] = [bits_on(study, one, chosen) for one in trained]
        cells = [show(bits[rung.name, e]) if (rung.name, e) in bits else "-" for e in ENSEMBLES]
        rows.append([rung.name, *cells])
    for pair in pairs(study):
        for name in ENSEMBLES:
            found = {r.name: bits[r.name, name] for r in pair if (r.name, name) in bits}
            if len(found) == 2:
                row.reading.append(verdict(f"Held-out loss, {name}", found, "bits per position"))
    if not bits:
        row.missing.append("no held-out clip says in its labels whether it is solo, duo or band")
    return Table(["rung (bits per position)", *ENSEMBLES], rows)


def bits_on(study: Study, one: TrainedArm, codes: Sequence[np.ndarray]) -> float:
    """Held-out bits per position of an arm."""
    bits = held_out_bits(one.prior.to(study.device), codes, one.arm.budget.crop_frames)
    return float(bits.sum())


def heard_rows(study: Study, rung: Rung, row: Row) -> list[list[str]]:
    """A rung's lines: what the held-out codes give, then what its arms write."""
    hearing = hearing_of(study, rung)
    settings = study.settings.complexity
    pieces = study.validation(rung.tokens)
    trained = [study.train(arm) for arm in study.rung_arms(rung)]
    why_not: set[str] = set()
    lines = []
    for name in ENSEMBLES:
        asked = [piece for piece in pieces if piece.ensemble == name and piece.captions]
        asked = asked[: settings.clips]
        if not asked:
            continue
        study.say(f"complexity: {rung.name}, {name}")
        books = trained[0].prior.num_codebooks
        true = [torch.from_numpy(p.codes[:books, : settings.frames].astype(int)) for p in asked]
        reference = listen(hearing, true, asked, why_not)
        lines.append([f"{rung.name}, {REFERENCE}", name, *cells([reference], reference)])
        written = [write(study, one, asked) for one in trained]
        if name == ENSEMBLES[-1]:
            add_examples(study, row, rung, hearing, written[0], asked)
        heard = [listen(hearing, codes, asked, why_not) for codes in written]
        lines.append([rung.name, name, *cells(heard, reference)])
    row.missing += [reason for reason in sorted(why_not) if reason not in row.missing]
    return lines


@torch.inference_mode()
def write(study: Study, one: TrainedArm, asked: Sequence[Piece]) -> list[Tensor]:
    """(K, T) codes for the captions of some pieces, seeded by the arm's seed and their number."""
    tokenizer, encoder = load_text_encoder(study.settings.optimization.text_encoder)
    prompts = [piece.captions[0] for piece in asked]
    text = encode_text(tokenizer, encoder, prompts)
    seeds = [one.arm.seed * 1000 + number for number in range(len(asked))]
    prior = one.prior.to(study.device)
    frames = FrameGenerator(prior, text, None, study.settings.complexity.frames, Sampling(), seeds)
    codes = torch.stack([frame.codes for frame in frames], dim=-1).cpu()
    return list(codes)


def listen(
    hearing: Hearing, codes: Sequence[Tensor], asked: Sequence[Piece], why_not: set[str]
) -> Heard:
    """Play, embed, and look for what was asked."""
    heard = Heard()
    for one, piece in zip(codes, asked, strict=True):
        try:
            audio = hearing.play(one)
        except UnmeasurableError as error:
            why_not.add(f"a clip without sound: {error}")
            continue
        for space in SPACES:
            try:
                heard.vectors[space].append(EMBEDDINGS[space](audio, hearing.sample_rate))
            except (MissingPackageError, UnmeasurableError) as error:
                why_not.add(f"{space}: {error}")
        try:
            facts = kept(audio, hearing.sample_rate, json.loads(piece.labels or "{}"))
        except MissingPackageError as error:
            why_not.add(f"adherence: {error}")
            continue
        for fact, right in facts.items():
            heard.hits[fact].append(right)
    return heard


def cells(heard: Sequence[Heard], reference: Heard) -> list[str]:
    """Distances, shares of facts that were kept, and clips; mean and spread over seeds."""
    texts = []
    for space in SPACES:
        sides = [(reference.vectors.get(space), one.vectors.get(space)) for one in heard]
        distances = [distance(a, b) for a, b in sides if a and b and a is not b]
        known = [value for value in distances if value is not None]
        texts.append(show(known) if known else "-")
    for fact in FACTS:
        shares = [float(np.mean(one.hits[fact])) for one in heard if one.hits.get(fact)]
        count = sum(len(one.hits.get(fact, [])) for one in heard)
        texts.append(f"{show(shares, 2)} of {count}" if shares else "-")
    clips = [len(next(iter(one.vectors.values()), [])) for one in heard]
    return [*texts, number(sum(clips))]


def distance(reference: list[np.ndarray], estimate: list[np.ndarray]) -> float | None:
    """Fréchet distance at equal N; None below two windows."""
    if min(sum(map(len, side)) for side in (reference, estimate)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few windows are said in the method
        return frechet_distance(*equal_windows(np.concatenate(reference), np.concatenate(estimate)))


def add_examples(
    study: Study,
    row: Row,
    rung: Rung,
    hearing: Hearing,
    written: Sequence[Tensor],
    asked: Sequence[Piece],
) -> None:
    """Write a few short sound examples beside the document."""
    settings = study.settings.complexity
    for index in range(min(settings.examples, len(written))):
        try:
            audio = hearing.play(written[index])
        except UnmeasurableError:
            continue
        slug = "".join(c if c.isalnum() else "-" for c in rung.name.lower())
        path = study.sounds / f"{slug}-{index}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        length = round(settings.examples_s * hearing.sample_rate)
        write_audio(path, audio[:, :length], hearing.sample_rate, subtype="PCM_16")
        said = f'{rung.name}: "{asked[index].captions[0]}", by {hearing.how}'
        row.examples.append((str(path.relative_to(study.sounds.parent)), said))
