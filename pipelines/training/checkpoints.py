"""Write checkpoints under another name, rename them when they are whole, and load them."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from codec.whole_file import read_json_object, replace_folder

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

CHECKPOINT_PREFIX = "checkpoint-"


def save_checkpoint(
    accelerator: "Accelerator",
    write: Callable[[str], None],
    folder: Path,
    step: int,
    keep: int,
    items_per_step: int,
) -> None:
    """Write a checkpoint under a temporary name, rename it, then drop the oldest.

    Raises:
        ConnectionError: another process of the run has ended.
        OSError: it could not be written.
    """
    from pipelines.training.acceleration import lost_processes_named

    target = folder / f"{CHECKPOINT_PREFIX}{step:08d}"
    partial = folder / f".partial-{target.name}"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        with lost_processes_named(accelerator):
            accelerator.wait_for_everyone()
            write(str(partial))
            accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / "step.json").write_text(
                json.dumps({"step": step, "items_per_step": items_per_step})
            )
            replace_folder(partial, target)
            for old in checkpoints(folder)[:-keep]:
                shutil.rmtree(old)
    except ConnectionError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"checkpoint {target} could not be written ({error}); the previous one is kept"
        ) from error
    accelerator.wait_for_everyone()


def read_step(checkpoint: Path, items_per_step: int, processes: int) -> int:
    """Return the step at which a checkpoint was written.

    Raises:
        ValueError: its run took another number of items a step, so that the rest would neither
            begin where it ended nor equal it.
    """
    found = read_json_object(checkpoint / "step.json")
    items = found.get("items_per_step", items_per_step)
    if items != items_per_step:
        fitting = f"batch_size and gradient_accumulation_steps must make {items} of them again"
        if items % processes:
            fitting = f"{processes} processes cannot share {items}"
        raise ValueError(
            f"{checkpoint} is of {items} items a step, got {items_per_step} on {processes} "
            f"process{'es' * (processes > 1)}: {fitting}"
        )
    return int(found["step"])


def load_checkpoint(load: Callable[[str], None], checkpoint: Path) -> None:
    """Load all that a run keeps in a checkpoint.

    Raises:
        ValueError: the checkpoint is of a model of other sizes, or a file in it is damaged.
    """
    try:
        load(str(checkpoint))
    except Exception as error:  # a torn file can end in any of them
        reason = " ".join(str(error).split())
        if "size mismatch" in reason or "parameter group" in reason or "_keys" in reason:
            raise ValueError(
                f"{checkpoint} is of a model of other sizes: {reason[:300]}"
            ) from error
        raise ValueError(
            f"{checkpoint} is damaged ({reason[:300]}): delete it to go on from the one before"
        ) from error


def load_weights(model: "nn.Module", folder: str | Path) -> list[str]:
    """Take over the weights that diffusers saved of a model of the same sizes, in place.

    Returns:
        Names of the model's tensors that the folder lacks; they stay as they were.

    Raises:
        FileNotFoundError: the folder has no weights.
        ValueError: a tensor that the model does not know, or of another shape.
    """
    from safetensors.torch import load_file

    from codec.component import WEIGHTS_NAME

    path = Path(folder) / WEIGHTS_NAME
    warn_of_other_codec(model, Path(folder) / "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"start_from: {path} does not exist")
    found, own = load_file(path), model.state_dict()
    for name, tensor in found.items():
        if name not in own:
            raise ValueError(f"start_from: {path} holds {name!r}, which this model does not have")
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"start_from: tensor {name!r} of {path} must be {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}"
            )
    model.load_state_dict(found, strict=False)
    return sorted(own.keys() - found.keys())


def warn_of_other_codec(model: "nn.Module", path: Path) -> None:
    """Warn where a model goes on on the codes of another codec than those it has learned."""
    own = getattr(model, "config", {}).get("_codec_hash")
    found = read_json_object(path).get("_codec_hash") if path.is_file() else None
    if own and found and own != found:
        warnings.warn(
            f"start_from: {path.parent} was trained on the codes of another codec "
            f"({found[:8]}, now {own[:8]}): it has to learn what they mean anew",
            stacklevel=3,
        )


def checkpoints(folder: Path) -> list[Path]:
    """List the whole checkpoints in a run's folder, oldest first."""
    found = folder.glob(f"{CHECKPOINT_PREFIX}*")
    return sorted(path for path in found if (path / "step.json").is_file())


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint to resume from."""
    found = checkpoints(folder)
    return found[-1] if found else None
