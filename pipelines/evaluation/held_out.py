"""Measure the cross-entropy of held-out codes under a prior, with the plan that it reads."""

import json

import torch
from torch import Tensor

from pipelines.data.plans import plan_of_labels
from prior.condition import Condition
from prior.form import frame_features
from prior.loss import cross_entropy
from prior.model import Prior


@torch.inference_mode()
def nats_per_code(prior: Prior, codes: Tensor, condition: Condition | None = None) -> Tensor:
    """Measure the cross-entropy of every code given all codes before it.

    The first codebook's probabilities are those of its V codes and of the end together.

    Args:
        prior: in evaluation mode.
        codes: (B, K, T) int64 in [0, V).
        condition: B rows; None for no text and no plan.

    Returns:
        (B, K, T) float32 on the CPU, in nats; a frame costs the sum over its codebooks.
    """
    if condition is None:
        condition = Condition.empty(len(codes), prior.config["text_width"])
    condition = condition.to(prior.device)
    codes = codes.to(prior.device)
    output = prior(codes, condition)
    nats = [cross_entropy(output.first_logits, codes[:, 0])]
    for book, logits in enumerate(output.depth_logits.unbind(1), start=1):
        nats.append(cross_entropy(logits, codes[:, book]))
    return torch.stack(nats, dim=1).cpu()


def labeled_plan(prior: Prior, labels: str, num_frames: int) -> Tensor | None:
    """Build the plan that a prior reads beside a clip, from the JSON labels of a token cache.

    Returns:
        (T, P) float32 from the clip's first frame on, zeros where the labels hold no plan; None for
        a prior that reads no plan.
    """
    if not prior.config["reads_plan"]:
        return None
    plan, config = plan_of_labels(json.loads(labels)), prior.config
    return frame_features(plan, num_frames, config["frame_rate"], config["reads_form"])
