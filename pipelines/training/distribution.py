"""Hold model, optimizer and average on all processes: whole on each, or split over them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor

from pipelines.training.blocks import shard_blocks
from pipelines.training.weight_average import WeightAverage

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
SHARDS_NAME = "shards"


class WholeWeights:
    """Give every process all weights; their gradients are averaged (DDP)."""

    def __init__(
        self,
        model: nn.Module,
        average: WeightAverage,
        make_optimizer: MakeOptimizer,
        accelerator: Accelerator,
    ) -> None:
        self.average, self.accelerator = average, accelerator
        if getattr(model, "future_mark", None) is not None:  # of which only some steps make use
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(model))
        accelerator.register_for_checkpointing(average)

    def save(self, folder: str) -> None:
        """Write a checkpoint's state."""
        self.accelerator.save_state(folder)

    def load(self, folder: str) -> None:
        """Read a checkpoint's state.

        Raises:
            ValueError: the checkpoint was written by a run with ``sharding``.
        """
        if (Path(folder) / SHARDS_NAME).is_dir():
            raise ValueError(f"{folder} was written with sharding=true, got sharding=false")
        self.accelerator.load_state(folder)

    def averaged(self) -> nn.Module:
        """Return the average, to be validated and exported."""
        return self.average.module


class ShardedWeights:
    """Give every process a share of each weight, gradient, moment and average (FSDP2)."""

    def __init__(
        self,
        model: nn.Module,
        average: WeightAverage,
        make_optimizer: MakeOptimizer,
        accelerator: Accelerator,
    ) -> None:
        self.average, self.accelerator = average, accelerator
        # single steps of generation, as validation takes them, need whole weights
        self.replica = copy.deepcopy(average.module).cpu()
        for part in (model, average.module):
            shard_blocks(part, accelerator.device)
        self.model = accelerator.prepare_model(model, evaluation_mode=True)  # autocast, no DDP
        self.optimizer = accelerator.prepare_optimizer(make_optimizer(model))

    def save(self, folder: str) -> None:
        """Write this process's share (torch.distributed.checkpoint)."""
        distributed_checkpoint.save(self._state(), checkpoint_id=Path(folder) / SHARDS_NAME)

    def load(self, folder: str) -> None:
        """Read this process's share of a state that any number of processes wrote.

        Raises:
            ValueError: the checkpoint was written by a run without ``sharding``.
        """
        path = Path(folder) / SHARDS_NAME
        if not path.is_dir():
            raise ValueError(f"{folder} was written with sharding=false, got sharding=true")
        state = self._state()
        distributed_checkpoint.load(state, checkpoint_id=path)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        set_model_state_dict(self.average.module, state["average"])
        self.average.n_averaged.copy_(state["n_averaged"])
        self.average.least_decay = float(state["least_decay"])

    def averaged(self) -> nn.Module:
        """Gather the average on the main process; every process must call."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(self.average.module, options=options)
        if self.accelerator.is_main_process:
            self.replica.load_state_dict(weights)
        return self.replica

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {
            "model": model,
            "optimizer": optimizer,
            "average": get_model_state_dict(self.average.module),
            "n_averaged": self.average.n_averaged,
            "least_decay": torch.tensor(self.average.least_decay),
        }


def whole(tensor: Tensor) -> Tensor:
    """Gather the whole of a tensor; every process must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
