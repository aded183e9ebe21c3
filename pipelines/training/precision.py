"""Which precision training computes in."""

import torch

BF16_FEATURES = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""Names in ``torch.cpu.get_capabilities``; without one of them a CPU emulates bfloat16."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve "auto": bf16 where the device computes in it, otherwise float32.

    On a CPU without bfloat16 instructions a bf16 product takes some sixty times as long as a
    float32 one (docs/experiments.md).

    Args:
        wanted: "auto", or a name of ``PRECISIONS``, which is returned as it is.
        device: that computes.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type == "cpu":
        # PyTorch before 2.10 does not tell
        features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bf16" if any(features.get(name) for name in BF16_FEATURES) else "no"
    return "no"
