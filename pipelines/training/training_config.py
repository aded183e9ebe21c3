"""Hold the settings that the three trainers share."""

import math
from dataclasses import dataclass

from pipelines.errors import check_fields


@dataclass(frozen=True)
class TrainingConfig:
    """Set what every trainer needs besides its model and its data.

    Args:
        output_dir: where checkpoints, logs, samples and the exported model go.
        steps: optimizer steps in all.
        batch_size: items per process and forward pass.
        gradient_accumulation_steps: forward passes per step.
        learning_rate: peak, reached after ``warmup_steps``, then decaying by a cosine to a tenth.
        warmup_steps: steps of linear warm-up.
        weight_decay: of AdamW, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        ema_decay: of the averaged weights, which are what is validated and exported. From scratch
            it grows to this value; a run that goes on from a whole model has it from the start, so
            that N steps leave a share of ``ema_decay ** N`` to that model (weights between two
            models: WiSE-FT, arXiv 2109.01903).
        mixed_precision: "no", "bf16", "fp16", or "auto": bf16 where the processor computes in it
            (on a CPU without such instructions it is far slower than float32).
        start_from: folder of a trained model of the same sizes to go on from; a new optimizer and
            schedule. Tensors that it lacks start fresh.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the newest to keep.
        validate_every: steps between validations (and samples).
        log_every: steps between lines of ``metrics.jsonl``.
        log_with: "tensorboard" or "trackio" beside ``metrics.jsonl``, if installed.
        num_workers: data-loading processes.
        sharding: split parameters, gradients, optimizer and average over all processes (FSDP2), for
            a prior or a decoder that one device cannot hold; otherwise every process has them all.
        activation_checkpointing: compute activations inside blocks twice instead of keeping them.
        compile_blocks: compile the blocks of a prior or a decoder.
        seed: of everything random.
    """

    output_dir: str
    steps: int = 1000
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "auto"
    start_from: str | None = None
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    validate_every: int = 500
    log_every: int = 20
    log_with: str | None = None
    num_workers: int = 0
    sharding: bool = False
    activation_checkpointing: bool = False
    compile_blocks: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        counts = "steps batch_size gradient_accumulation_steps checkpoint_every keep_checkpoints"
        check_fields(self, f"{counts} validate_every log_every", lambda n: n >= 1, "be at least 1")
        others = "warmup_steps weight_decay num_workers seed"
        check_fields(self, others, lambda n: n >= 0, "be at least 0")
        check_fields(self, "seed", lambda seed: seed < 2**63, "be below 2**63")
        check_fields(self, "learning_rate", lambda n: 0 < n < math.inf, "be positive and finite")
        check_fields(self, "max_grad_norm", lambda norm: norm > 0, "be positive")
        a_path = "be the path of a folder, without ~"
        check_fields(self, "output_dir", lambda path: path.strip() and path[0] != "~", a_path)
        check_fields(self, "ema_decay", lambda decay: 0 <= decay < 1, "lie in [0, 1)")
        for name, known in (
            ("mixed_precision", ("auto", "no", "bf16", "fp16")),
            ("log_with", (None, "tensorboard", "trackio")),
        ):
            check_fields(self, name, known.__contains__, f"be one of {known}")
        if self.sharding and self.mixed_precision == "fp16":
            raise ValueError("mixed_precision must be no, bf16 or auto with sharding, got 'fp16'")
