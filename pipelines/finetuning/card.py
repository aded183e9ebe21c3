"""The model card of an adapter."""

import json
from typing import Any

from pipelines.data.recordings.tracks import Track
from pipelines.finetuning.adaptation import FinetuneConfig
from pipelines.finetuning.before_after import describe_figures


def adapter_card(
    config: FinetuneConfig, tracks: list[Track], figures: dict[str, Any] | None
) -> str:
    """Write what an adapter is for, what it was trained on and what it changed."""
    head = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-audio",
        "base_model": config.pipeline.resolve().name,
        "tags": ["lora", "music"],
    }
    header = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    lines = ["---", header, "---", "", f"# {config.output.resolve().name}", ""]
    lines += [f"A LoRA adapter of rank {config.rank}, {config.steps} steps of {config.batch_size}."]
    lines += ["", f"    partita generate 'a prompt' --lora {config.output.name}:0.8", ""]
    lines += [f"- {line}" for line in describe_figures(figures)] if figures else []
    lines += ["", "| Track | Split | License | Attribution |", "|---|---|---|---|"]
    for track in tracks:
        facts = [track.metadata.get(name, "") for name in ("license", "attribution")]
        lines.append("| " + " | ".join([track.name, track.split, *facts]) + " |")
    return "\n".join(lines) + "\n"
