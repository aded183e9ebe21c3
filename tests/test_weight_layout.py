import torch
from tiny_prior import some_codes, some_text, tiny_prior

from prior import Prior
from prior.weight_layout import lay_out_by_column


@torch.no_grad()
def test_values_shapes_and_files_stay(tmp_path):
    prior, text = tiny_prior("transformer"), some_text(2)
    codes = some_codes(prior, 2, 9)
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    logits = prior(codes, text.states, text.mask).first_logits
    lay_out_by_column(prior)
    if torch.backends.mkl.is_available():
        assert prior.first_head.weight.stride() == (1, prior.first_head.weight.shape[0])
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, before[name])
    torch.testing.assert_close(prior(codes, text.states, text.mask).first_logits, logits)
    prior.save_pretrained(tmp_path)
    for name, tensor in Prior.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.is_contiguous()
