"""The text's summary: attention pooling against a plain loop, masks, its start."""

import math

import pytest
import torch

from prior.condition import Condition
from prior.frame_condition import TextSummary
from prior.model import Prior


def states(batch: int = 2, tokens: int = 5) -> torch.Tensor:
    return torch.randn(batch, tokens, 12, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_it_equals_a_plain_loop():
    torch.manual_seed(0)
    pool, given = TextSummary(12, 6, num_queries=3, value_width=2), states(batch=1, tokens=4)
    gathered = []
    for query in pool.score.weight:
        raised = [math.exp(float(query @ token)) for token in given[0]]
        parts = [
            pool.value(token) * e / sum(raised) for e, token in zip(raised, given[0], strict=True)
        ]
        gathered.append(sum(parts))
    expected = pool.project(torch.cat(gathered))
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert torch.allclose(pool(given, mask), expected.view(1, 1, 6), atol=1e-6)


@torch.no_grad()
def test_masked_tokens_do_not_count():
    torch.manual_seed(0)
    pool, given = TextSummary(12, 6), states()
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    changed = given.clone()
    changed[0, 3:] += 7.0
    assert torch.equal(pool(changed, mask), pool(given, mask))
    assert not torch.allclose(pool(changed, ~mask | mask)[0], pool(given, mask)[0])


@pytest.mark.parametrize("backbone", ["transformer", "lstm"])
@torch.no_grad()
def test_a_new_prior_hears_no_summary_and_a_trained_one_does(backbone):
    torch.manual_seed(0)
    sizes = {"codebook_size": 8, "width": 16, "num_layers": 1, "num_heads": 2, "text_width": 12}
    prior = Prior(backbone, **sizes, depth_width=8, depth_heads=1).eval()
    for block in prior.network.blocks:
        block.text_attention.out.weight.zero_()  # leaves the summary alone
    codes = torch.zeros(2, 2, 6, dtype=torch.int64)
    text = Condition(states(), torch.ones(2, 5, dtype=torch.bool))
    first, second = prior(codes, text).first_logits
    assert torch.equal(first, second)
    torch.nn.init.normal_(prior.text_summary.project.weight)
    first, second = prior(codes, text).first_logits
    assert not torch.allclose(first, second)
