"""Fit the detectors on rendered music with exact labels.

Tempo and instruments are learned from the training clips of a prepared dataset and from pieces
rendered here, the key, which needs audio, from the latter. Held-out pieces use chord progressions
that no training piece has, but they come from the same composer.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from codec.seeds import derive_seed, generator
from pipelines.data.clip_levels import SAMPLE_RATE, dequantize_spectrogram
from pipelines.data.prepared import open_prepared, read_levels
from pipelines.data.scores.keys import PITCH_CLASSES, key_of
from pipelines.data.scores.score import all_labels
from pipelines.evaluation import detector_features as features
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import (
    CLASSES,
    LEADS,
    Detectors,
    InstrumentTagger,
    KeyFinder,
    TempoPicker,
)
from pipelines.evaluation.facts import judge
from pipelines.evaluation.ground_truth import SOUNDFONT, Wanted, compose_wanted, render_score
from pipelines.evaluation.second_opinion import SecondOpinion

PIECE_S = 10.0
TEMPO_SPAN = (50.0, 200.0)  # beats a minute
MIN_CLIP_FRAMES = 700
WINDOW_FRAMES = 1000
CROP_FRAMES = 300  # of 20 ms, for the tagger
TEMPO_STEPS, TEMPO_BATCH, TEMPO_RATE = 900, 48, 5e-3
KEY_STEPS, KEY_BATCHES, KEY_RATE = 600, 10, 5e-3
TAGGER_STEPS, TAGGER_BATCH, TAGGER_RATE = 1500, 32, 4e-3


@dataclass
class DetectorExamples:
    """Collects features and labels that the detectors learn from, a list entry for each clip."""

    correlations: list[Tensor] = field(default_factory=list)  # (E, lags), with ``tempos``
    tempos: list[float] = field(default_factory=list)
    # (M, F) uint8 for the tagger, with ``targets`` and ``leads``
    levels: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    leads: list[int] = field(default_factory=list)
    # (9, 12) chroma vectors, with ``keys`` from 0 to 23
    vectors: list[Tensor] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)

    def add_spectrogram(self, log_mel: Tensor, labels: dict[str, Any], start: int) -> None:
        """Add a clip's log-mel (M, F): whole for the tagger, 10 s from ``start`` for the tempo."""
        window = log_mel[:, start : start + WINDOW_FRAMES]
        self.correlations.append(features.autocorrelations(window).half())
        self.tempos.append(labels["tempo_bpm"])
        self.levels.append((features.tagger_levels(log_mel) * 255).round().to(torch.uint8))
        self.targets.append(tag_targets(labels))
        self.leads.append(lead_index(labels))

    def add_audio(self, audio: Tensor, labels: dict[str, Any]) -> None:
        """Add a rendered piece (2, S), for all three detectors."""
        self.add_spectrogram(features.mono_log_mel(audio, SAMPLE_RATE), labels, 0)
        self.vectors.append(features.chroma_vectors(features.mono_samples(audio, SAMPLE_RATE)))
        self.keys.append(PITCH_CLASSES[labels["key"]] + 12 * (labels["mode"] == "minor"))


def tag_targets(labels: dict[str, Any]) -> Tensor:
    """Mark the ``CLASSES`` that a clip's labels name: (classes,) float of zeros and ones."""
    named = {*labels["instruments"], *(["drums"] if labels["drums"] else [])}
    return torch.tensor([float(name in named) for name in CLASSES])


def lead_index(labels: dict[str, Any]) -> int:
    """Find the leading instrument in ``LEADS``; -1 for another one."""
    return LEADS.index(labels["lead"]) if labels["lead"] in LEADS else -1


def draw_piece(seed: int, index: int, held_out: bool) -> tuple[Wanted, int]:
    """Draw a piece's facts and seed: every lead and key in turn, tempo and drums by chance."""
    split = "held out" if held_out else "train"
    rng = random.Random(derive_seed(seed, "detectors", split, index))
    mode = ("major", "minor")[index // 12 % 2]
    wanted = Wanted(
        tempo_bpm=round(rng.uniform(*TEMPO_SPAN)),
        key=key_of(index % 12, mode),
        mode=mode,
        instrument=LEADS[index % len(LEADS)],
        drums=rng.random() < 0.5,
    )
    return wanted, derive_seed(seed, "detectors", split, "piece", index)


def gather_examples(
    folder: Path | None, renders: int, seed: int, quiet: bool = False
) -> DetectorExamples:
    """Read a prepared dataset's training clips and render pieces."""
    examples = DetectorExamples()
    if folder is not None:
        clips = open_prepared(folder, "train")
        facts = clips["labels"]
        for row in tqdm(range(len(clips)), desc="clips", disable=quiet):
            labels = json.loads(facts[row]) if facts[row] else {}
            if "tempo_bpm" not in labels or "instruments" not in labels:
                continue
            log_mel = features.mix_channels(dequantize_spectrogram(read_levels(clips, row)))
            if log_mel.shape[1] >= MIN_CLIP_FRAMES:
                last = max(0, log_mel.shape[1] - WINDOW_FRAMES)
                start = derive_seed(seed, "window", row) % (last + 1)
                examples.add_spectrogram(log_mel, labels, start)
    for index in tqdm(range(renders), desc="pieces", disable=quiet):
        wanted, piece_seed = draw_piece(seed, index, held_out=False)
        try:
            score = compose_wanted(wanted, piece_seed, held_out=False)
            examples.add_audio(render_score(score, PIECE_S), all_labels(score))
        except UnmeasurableError:
            continue
    return examples


def fit_detectors(examples: DetectorExamples, seed: int, quiet: bool = False) -> Detectors:
    """Fit the three networks; equal examples and seeds give equal weights on one machine.

    Raises:
        ValueError: there is nothing to learn one of them from.
    """
    if not examples.vectors or not examples.levels:
        raise ValueError("there must be rendered pieces to learn from, got none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "fit detectors") % 2**31)
        detectors = Detectors()
        draws = generator(seed, "fit detectors")
        fit_tempo(detectors.tempo, examples, draws)
        fit_key(detectors.key, examples, draws)
        fit_tagger(detectors.tagger, examples, draws, quiet)
    return detectors.eval()


def fit_tempo(picker: TempoPicker, examples: DetectorExamples, draws: torch.Generator) -> None:
    """Maximize the probability of the right candidate."""
    correlations, tempos = torch.stack(examples.correlations), torch.tensor(examples.tempos)

    def loss() -> Tensor:
        rows = torch.randint(len(correlations), (TEMPO_BATCH,), generator=draws)
        return picker.loss(correlations[rows].float(), tempos[rows])

    minimize(picker, loss, TEMPO_STEPS, TEMPO_RATE, 1e-3)


def fit_key(finder: KeyFinder, examples: DetectorExamples, draws: torch.Generator) -> None:
    """Minimize the cross-entropy over 24 keys."""
    vectors, keys = torch.stack(examples.vectors), torch.tensor(examples.keys)
    finder.normalize(vectors)
    count = -(-len(vectors) // KEY_BATCHES)

    def loss() -> Tensor:
        rows = torch.randperm(len(vectors), generator=draws)[:count]
        return F.cross_entropy(finder(vectors[rows]), keys[rows])

    minimize(finder, loss, KEY_STEPS, KEY_RATE, 0.3)


def fit_tagger(
    tagger: InstrumentTagger, examples: DetectorExamples, draws: torch.Generator, quiet: bool
) -> None:
    """Minimize the cross-entropies of every class and of the lead, on disturbed random crops.

    Clips whose lead is rare are drawn more often (by the square root of its rarity).
    """
    targets, leads = torch.stack(examples.targets), torch.tensor(examples.leads)
    weights = leads.add(1).bincount()[leads + 1].double().rsqrt()

    def loss() -> Tensor:
        rows = torch.multinomial(weights, TAGGER_BATCH, replacement=True, generator=draws)
        crops = [random_crop(examples.levels[row], draws) for row in rows.tolist()]
        levels = disturb(torch.stack(crops).float() / 255, draws)
        with torch.autocast("cpu", torch.bfloat16):
            tags, lead = tagger(levels)
        wrong_tags = F.binary_cross_entropy_with_logits(tags.float(), targets[rows])
        wrong = F.cross_entropy(lead.float(), leads[rows], ignore_index=-1, reduction="sum")
        return 5 * wrong_tags + wrong / TAGGER_BATCH

    tagger.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    minimize(tagger, loss, TAGGER_STEPS, TAGGER_RATE, 1e-2, quiet)
    tagger.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def random_crop(levels: Tensor, draws: torch.Generator) -> Tensor:
    """Cut (M, CROP_FRAMES) out of (M, F), padded with silence where it is shorter."""
    last = max(0, levels.shape[1] - CROP_FRAMES)
    start = int(torch.randint(last + 1, (), generator=draws))
    crop = levels[:, start : start + CROP_FRAMES]
    return F.pad(crop, (0, CROP_FRAMES - crop.shape[1]))


def disturb(levels: Tensor, draws: torch.Generator) -> Tensor:
    """Tilt, add noise and, four times in ten, blur in time, as codecs do to a spectrogram."""
    batch, bands, _ = levels.shape
    slope = torch.linspace(-1, 1, bands)[:, None]
    tilt = 1 + 0.1 * torch.randn(batch, 1, 1, generator=draws) * slope
    amount = 0.03 * torch.rand(batch, 1, 1, generator=draws)
    noise = amount * torch.randn(levels.shape, generator=draws) * (levels > 0)
    levels = (levels * tilt + noise).clamp(0, 1.2)
    if float(torch.rand((), generator=draws)) < 0.4:
        width = 3 + 2 * int(torch.randint(2, (), generator=draws))
        levels = F.avg_pool2d(levels[:, None], (1, width), 1, (0, width // 2))[:, 0]
    return levels


def minimize(
    network: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    rate: float,
    decay: float,
    quiet: bool = True,
) -> None:
    """Train a network by AdamW at a learning rate that rises and falls once."""
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2))
    for _ in tqdm(range(steps), desc=type(network).__name__, disable=quiet):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()


def judge_detectors(
    detectors: Detectors, pieces: int, seed: int, soundfont: Path = SOUNDFONT
) -> dict[str, float]:
    """Measure the share of right answers on rendered held-out pieces, by fact.

    With another ``soundfont`` than the detectors learned from, the shares are nearer to those on
    other music.
    """
    found: dict[str, list[bool]] = {}
    for index in range(pieces):
        wanted, piece_seed = draw_piece(seed, index, held_out=True)
        try:
            audio = render_score(compose_wanted(wanted, piece_seed), PIECE_S, soundfont)
            detected = detectors.detect(audio, SAMPLE_RATE)
        except UnmeasurableError:
            continue
        for fact, right in judge(wanted, detected, SecondOpinion()).items():
            found.setdefault(fact, []).append(right)
    return {fact: sum(right) / len(right) for fact, right in found.items()}
