"""Train a LoRA adapter of a task's model instead of the model (peft)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import import_package
from pipelines.inference.lora import LoraLoading
from pipelines.training.loop import TrainingTask

INSTALL = "pip install partita[finetune]"


@dataclass(frozen=True)
class LoraConfig:
    """How large an adapter is.

    Args:
        rank: of what is added to each linear layer's weight.
        alpha: what is added is scaled by ``alpha / rank``.
        seed: of the adapter's first weights.
    """

    rank: int = 16
    alpha: float = 16.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank and alpha must be positive, got {self.rank} and {self.alpha}")


class LoraTask:
    """A training task whose model keeps its weights and learns low-rank additions to them.

    Args:
        task: its model's linear layers get an adapter, in place.
        part: of a pipeline that the model is, "prior" or "decoder".
        config: see :class:`LoraConfig`.

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
        self.dataset = task.dataset
        self.audio_s_per_item = task.audio_s_per_item

    def collate(self, items: list[Any]) -> Any:
        """As the task."""
        return self.task.collate(items)

    def before_step(self, average: Any, batch: Any, step: int) -> None:
        """As the task."""
        self.task.before_step(average, batch, step)

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """As the task."""
        return self.task.loss(model, batch, step)

    def validate(self, model: Any, folder: Path) -> dict[str, float]:
        """As the task."""
        return self.task.validate(model, folder)

    def component(self, model: Any) -> Any:
        """What is exported: the adapter alone."""
        return LoraExport(model, self.part, self.settings)


@dataclass(frozen=True)
class LoraExport:
    """Writes the adapter of a model."""

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
