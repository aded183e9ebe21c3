"""Declare the settings of the comparison: what ``configs/compare.yaml`` holds."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import check_fields, check_names
from pipelines.inference.text import PRETRAINED

TOKEN_RATE = 25.0  # frames a second of the token caches that are compared (Hz)
ROWS = (
    *("throughput", "recall", "ladder", "speed", "scaling", "context"),
    *("generation", "reconstruction"),
)
"""Every measurement, in the order of the document."""


@dataclass(frozen=True)
class Budget:
    """Sets how long an arm trains.

    Args:
        steps: optimizer steps.
        batch_size: crops per step, all processes together.
        crop_frames: positions per crop.
        learning_rate: peak; None for that of the study.
    """

    steps: int
    batch_size: int
    crop_frames: int
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "steps batch_size crop_frames", lambda n: n >= 1, "be at least 1")


@dataclass(frozen=True)
class PriorVariant:
    """Describes a prior of the ladder: its config and the token caches that it learns.

    Args:
        name: in tables and plots.
        tokens: folders of token caches.
        config: YAML file of a prior, of which the ``model`` section is read.
        model: fields of ``Prior`` that override it. The width follows from the parameter count, the
            codebook size from the cache.
        against: name of the variant that it is compared with.
    """

    name: str
    tokens: list[str]
    config: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


@dataclass(frozen=True)
class Optimization:
    """Sets what all arms share besides their budget.

    Args:
        learning_rate: peak.
        warmup_share: share of the steps.
        weight_decay: AdamW's.
        ema_decay: decay of the averaged weights, which are measured.
        mixed_precision: as for the trainers.
        text_dropout: share of crops trained without their caption.
        depth_share: share of positions that train the codebooks after the first.
        validations: held-out losses along a run.
        validation_clips: crops behind each.
        text_encoder: folder of a saved pipeline.
    """

    learning_rate: float = 2e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.05
    ema_decay: float = 0.99
    mixed_precision: str = "auto"
    text_dropout: float = 0.5
    depth_share: float = 0.25
    validations: int = 8
    validation_clips: int = 16
    text_encoder: str = str(PRETRAINED)


@dataclass(frozen=True)
class ThroughputSettings:
    """Sets how training speed is measured against sequence length.

    Args:
        lengths: positions per sequence.
        tokens_per_step: length times batch of the batched series.
        repeats: timed steps per length, after one that does not count.
    """

    lengths: list[int]
    tokens_per_step: int = 8192
    repeats: int = 5


@dataclass(frozen=True)
class RecallSettings:
    """Describes synthetic streams in which a segment returns.

    Args:
        parameters: of each backbone.
        alphabet: number of different values.
        segment: frames that return.
        stages: budgets, one after the other, from short streams to long ones.
        gaps_s: between a segment's end and its repeat in the tests (s).
        tests: sequences per gap.
        model: fields of ``Prior`` in which these priors differ from the study's.
    """

    parameters: int
    alphabet: int
    segment: int
    stages: list[Budget]
    gaps_s: list[float]
    tests: int = 16
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("recall.stages must hold at least one budget")


@dataclass(frozen=True)
class ScalingSettings:
    """Sets sizes and data amounts that are trained at equal compute.

    Args:
        parameters: sizes of the arms.
        data_shares: shares of the training pieces.
        compute: operations per arm (a multiplication and an addition are two).
        batch_size: crops per step.
        crop_frames: positions per crop.
        draws: of the bootstrap.
    """

    parameters: list[int]
    data_shares: list[float]
    compute: float
    batch_size: int = 8
    crop_frames: int = 250
    draws: int = 1000


@dataclass(frozen=True)
class ContextSettings:
    """Sets how the past's worth is measured on whole pieces.

    Args:
        tokens: token caches whose clips are joined to pieces again.
        budget: of the training on whole pieces, which starts from arms trained on clips.
        clips: budget of the training on clips.
        longest_frames: a longer piece is measured on so many last frames.
        window_frames: length of a passage that returns.
        near_frames: the near past, which every backbone remembers.
        bands_s: limits of the distances at which themes return (s).
        passages: returning passages per piece and band.
    """

    tokens: list[str]
    clips: Budget
    budget: Budget
    longest_frames: int = 6000
    window_frames: int = 100
    near_frames: int = 250
    bands_s: list[float] = field(default_factory=lambda: [14.0, 30.0, 60.0, 120.0, 240.0])
    passages: int = 4


@dataclass(frozen=True)
class GenerationSettings:
    """Sets how generation is timed as the piece grows.

    Args:
        positions: frames generated before the clock starts.
        frames: timed at each position.
        repeats: timed runs.
    """

    positions: list[int]
    frames: int = 50
    repeats: int = 3


@dataclass(frozen=True)
class ReconstructionSettings:
    """Sets how notes and tokens are compared as codes of a sound.

    Args:
        scores: dataset of ``partita prepare scores``, made with ``--audio keep``.
        recordings: prepared recordings with their audio kept.
        clips: of each.
        clip_s: their length (s).
    """

    scores: str | None = None
    recordings: str | None = None
    clips: int = 12
    clip_s: float = 10.0


@dataclass(frozen=True)
class ComparisonSettings:
    """Sets the whole study.

    Args:
        output_dir: of everything that is computed; a run goes on with what it finds there.
        document: Markdown file that the run writes; figures go into a folder beside it.
        seeds: one training per seed of everything of which a difference is claimed.
        parameters: of every backbone outside the scaling row.
        tolerance: share by which two backbones' parameter counts may differ.
        codec: folder of the codec behind the tokens; None leaves out what needs its sound.
        model: fields of ``Prior`` that all arms share.
        backbones: name -> fields of ``Prior``; the first two are compared.
        rows: what is measured.
        ladder: priors from a plain LSTM over notes to a Transformer over audio tokens.
        ladder_budget: of each of them.
    """

    output_dir: str
    document: str
    parameters: int
    model: dict[str, Any]
    backbones: dict[str, dict[str, Any]]
    ladder: list[PriorVariant]
    ladder_budget: Budget
    throughput: ThroughputSettings
    recall: RecallSettings
    scaling: ScalingSettings
    context: ContextSettings
    generation: GenerationSettings
    reconstruction: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    optimization: Optimization = field(default_factory=Optimization)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tolerance: float = 0.03
    codec: str | None = None
    rows: list[str] = field(default_factory=lambda: [*ROWS])

    def __post_init__(self) -> None:
        check_names("rows", self.rows, ROWS)
        if len(self.backbones) < 2:
            raise ValueError(f"backbones must be at least two, got {[*self.backbones]}")
        if not self.seeds:
            raise ValueError("seeds must name at least one seed")
        names = [variant.name for variant in self.ladder]
        if len(set(names)) < len(names):
            raise ValueError(f"ladder must name every prior differently, got {names}")
        for variant in self.ladder:
            if variant.against not in (None, *names):
                raise ValueError(
                    f"ladder compares {variant.name!r} with {variant.against!r}, which it lacks"
                )
