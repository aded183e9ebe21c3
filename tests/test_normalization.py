import pytest
import torch
from torch import nn

from prior.normalization import RMSNorm


@pytest.mark.parametrize("scale", [0.02, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(2, 320), (1, 3, 2, 5, 64)])
def test_it_equals_the_library_with_and_without_gradients(scale: float, shape: tuple[int, ...]):
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1])
    nn.init.normal_(norm.weight)
    x = scale * torch.randn(shape)
    expected = nn.functional.rms_norm(x, (shape[-1],), norm.weight)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected, rtol=1e-3, atol=1e-6)
        assert torch.isfinite(norm(torch.zeros(shape))).all()
    torch.testing.assert_close(norm(x), expected)  # with gradients, in C


def test_it_saves_and_loads_as_the_library_does():
    assert RMSNorm(8).state_dict().keys() == nn.RMSNorm(8).state_dict().keys()
