"""Change the blocks of a model: computed twice to save memory, compiled, or split."""

from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint


def list_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks that a model names as those not to be split.

    Raises:
        ValueError: it names none, as codecs do.
    """
    names = getattr(model, "_no_split_modules", None) or ()
    found = [module for module in model.modules() if type(module).__name__ in names]
    if not found:
        raise ValueError(
            "sharding, activation_checkpointing and compile_blocks need a prior or a decoder, "
            f"got {type(model).__name__}"
        )
    return found


def checkpoint_activations(model: nn.Module) -> None:
    """Compute what is inside a block again in the backward pass instead of keeping it."""
    for block in list_blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(model: nn.Module) -> None:
    """Compile every block's forward; equal blocks share one compilation."""
    for block in list_blocks(model):
        block.compile()


def shard_blocks(model: nn.Module, device: torch.device) -> None:
    """Split every parameter over all processes, to be gathered block by block (FSDP2).

    Raises:
        ValueError: there is one process, without a group.
    """
    blocks = list_blocks(model)
    if not torch.distributed.is_initialized():
        raise ValueError("sharding=true needs several processes: start it with torchrun")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh)
