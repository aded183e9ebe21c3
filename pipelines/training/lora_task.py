"""Train a LoRA adapter of a task's model instead of the model (peft)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.errors import check_fields, import_package
from pipelines.inference.lora import LoraLoading
from pipelines.training.loop import TrainingTask

INSTALL = "pip install partita[finetune]"


@dataclass(frozen=True)
class LoraConfig:
    """Set how large an adapter is.

    Args:
        rank: of what is added to each linear layer's weight.
        alpha: what is added is scaled by ``alpha / rank``.
        seed: of the adapter's first weights.
    """

    rank: int = 16
    alpha: float = 16.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "rank alpha", lambda value: value > 0, "be positive")


class LoraTask:
    """Train low-rank additions to the weights of a task's model, which stay as they are.

    The model's linear layers get an adapter, in place; ``part`` is "prior" or "decoder".

    Raises:
        MissingPackageError: peft is not installed.
    """

    def __init__(self, task: TrainingTask, part: str, config: LoraConfig) -> None:
        peft: Any = import_package("peft", "fine-tuning", INSTALL)
        self.task, self.part = task, part
        self.settings = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=[n for n, m in task.model.named_modules() if isinstance(m, nn.Linear)],
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model: nn.Module = peft.inject_adapter_in_model(self.settings, task.model)
        self.dataset, self.audio_s_per_item = task.dataset, task.audio_s_per_item
        self.collate, self.before_step = task.collate, task.before_step
        self.loss, self.validate = task.loss, task.validate

    def component(self, model: Any) -> Any:
        """Return what is exported: the adapter alone."""
        return LoraExport(model, self.part, self.settings)


@dataclass(frozen=True)
class LoraExport:
    """Write the adapter of a model."""

    model: nn.Module
    part: str
    settings: Any

    def save_pretrained(self, folder: Path) -> None:
        """Write the file that ``Pipeline.load_lora_weights`` reads."""
        from peft import get_peft_model_state_dict

        facts = {"r": self.settings.r, "lora_alpha": self.settings.lora_alpha}
        LoraLoading.save_lora_weights(
            folder,
            **{
                f"{self.part}_lora_layers": get_peft_model_state_dict(self.model),
                f"{self.part}_lora_adapter_metadata": facts,
            },
        )
