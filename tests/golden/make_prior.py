"""Write the prior's golden data: ``PYTHONPATH=.:tests python -m golden.make_prior``.

Committed are tiny weights, the texts and plan that condition them, and the codes they write. Run
it only when codes for fixed seeds are meant to change, and say why in the commit.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_prior import ALL_BACKBONES, some_codes, some_text, tiny_prior
from torch import Tensor

from prior import Condition, Prior, Sampling
from prior.frame_generator import FrameGenerator
from prior.plan import PLAN_WIDTH

FOLDER = Path(__file__).parent / "prior"
NUM_FRAMES = 24
SETTINGS = {
    "guided": Sampling(temperature=0.9, top_k=8, guidance=3.0),
    "plain": Sampling(top_p=0.8, guidance=1.0),
    "greedy": Sampling(temperature=0.0, guidance=2.0),
}


def outputs(prior: Prior, text: Condition, negative: Condition) -> dict[str, Tensor]:
    """Codes (B, K, T) that a prior writes under every setting, by the setting's name."""
    written = {}
    for name, sampling in SETTINGS.items():
        away = negative if name == "guided" else None
        frames = FrameGenerator(
            prior, text, away, NUM_FRAMES, sampling, [3, 4], some_codes(prior, 2, 3)
        )
        written[name] = torch.stack([frame.codes for frame in frames], dim=-1)
    return written


def main() -> None:
    """Write weights, conditions and codes."""
    draws = torch.Generator().manual_seed(5)
    values = {
        "text": some_text(2).text_states,
        "negative": some_text(2, 3, seed=7).text_states,
        "plan": torch.randn(2, 30, PLAN_WIDTH, generator=draws),
    }
    for backbone in ALL_BACKBONES:
        prior = tiny_prior(backbone, reads_plan=True, sliding_window=10)
        prior.save_pretrained(FOLDER / backbone)
        written = outputs(prior, *conditions(values))
        values |= {f"{backbone}.{name}": codes for name, codes in written.items()}
    save_file(
        {name: value.contiguous() for name, value in values.items()}, FOLDER / "values.safetensors"
    )


def conditions(values: dict[str, Tensor]) -> tuple[Condition, Condition]:
    """The text with its plan, and the text to move away from."""
    masks = [torch.ones(values[name].shape[:2], dtype=torch.bool) for name in ("text", "negative")]
    text = Condition(values["text"], masks[0], values["plan"])
    return text, Condition(values["negative"], masks[1])


if __name__ == "__main__":
    main()
