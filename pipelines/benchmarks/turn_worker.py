"""Do pieces of work with one build's packages, each when a line on standard input names it.

``python turn_worker.py SECONDS THREADS`` with ``PYTHONPATH`` at a checkout of Partita, this one or
an earlier one: only what all builds since November 2026 have is called. Answers are JSON lines.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

PROMPT = "a slow sad piano piece in D minor, 70 bpm"
CLIPS, CLIP_FRAMES, DEPTH_FRAMES = 16, 125, 31
"""Size of a training batch: as in configs/prior/tiny.yaml."""


def load_works(duration_s: float) -> dict[str, Callable[[], object]]:
    """Load the build's pipeline, and return what can be asked for."""
    import pipelines

    try:
        from pipelines.inference.music_generator import MusicGenerator as Loaded
    except ImportError:  # builds before it
        from pipelines import Pipeline as Loaded
    music = Loaded.from_pretrained(f"{pipelines.__path__[0]}/pretrained/partita-tiny")
    music.set_progress_bar_config(disable=True)
    codes = music(PROMPT, duration_s, 0).codes
    return {
        "decoder and vocoder": lambda: music.decode(codes, 0),
        "first sound": lambda: next(iter(music.stream(PROMPT, duration_s, 0))),
        "piece": lambda: music(PROMPT, duration_s, 0),
        "prior, training step": training_step(type(music.prior)(**own_config(music.prior))),
    }


def own_config(model: Any) -> dict[str, Any]:
    """Return the arguments that a model was made with."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def training_step(prior: Any) -> Callable[[], object]:
    """Return a function that takes an optimizer step on random codes."""
    import torch

    from prior.loss import PriorBatch, prior_loss

    draws = torch.Generator().manual_seed(0)
    size = prior.config.codebook_size
    codes = torch.randint(size, (CLIPS, prior.num_codebooks, CLIP_FRAMES), generator=draws)
    text = torch.randn(CLIPS, 20, prior.config.text_width, generator=draws)
    mask, text_mask = torch.ones(CLIPS, CLIP_FRAMES).bool(), torch.ones(CLIPS, 20).bool()
    frames = torch.randint(CLIP_FRAMES, (CLIPS, DEPTH_FRAMES), generator=draws)
    given: dict[str, Any] = {"codes": codes, "frame_mask": mask, "depth_frames": frames}
    given["ends"] = torch.zeros(CLIPS).bool()
    if "condition" in PriorBatch.__annotations__:
        from prior.condition import Condition

        given["condition"] = Condition(text, text_mask)
    else:
        given |= {"text_states": text, "text_mask": text_mask}
    batch, model = PriorBatch(**given), prior.train()
    return optimizer_step(model, lambda: prior_loss(model, batch).loss)


def optimizer_step(model: Any, loss: Callable[[], Any]) -> Callable[[], object]:
    """Return a function that takes a step of AdamW on a loss, its gradient clipped.

    The loss is computed in bfloat16 where the processor has instructions for it, as the trainers'
    ``mixed_precision: auto`` has it.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bf16 = any(there and name.endswith("bf16") for name, there in capabilities.items())

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Answer with the names of the works, then with the seconds that each one asked for took."""
    import torch

    torch.set_num_threads(int(sys.argv[2]))
    works = load_works(float(sys.argv[1]))
    print(json.dumps([*works]), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        works[line.strip()]()
        taken = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
