"""Windows of a stream equal the whole, for functions of limited reach."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from codec.convnext import ConvNextStack
from codec.stages import grown, pull, run
from codec.windows import Windows, windowed

sizes = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any)


def stack(layers: int, kernel: int) -> nn.Sequential:
    """Random convolutions, zero padded; reach layers * (kernel // 2)."""
    torch.manual_seed(layers)
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Conv1d(2, 2, kernel, padding=kernel // 2), nn.Tanh()]
    return nn.Sequential(*parts).double()


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), st.integers(0, 3), st.sampled_from([1, 3, 5]))
@torch.no_grad()
def test_convolutions_over_windows_equal_the_whole(blocks, size, layers, kernel):
    network = stack(layers, kernel)
    signal = torch.randn(1, 2, sum(blocks), dtype=torch.float64)
    pieces = windowed(signal.split(blocks, dim=-1), network, size=size, halo=layers * (kernel // 2))
    joined = torch.cat(list(pieces), dim=-1)
    assert torch.allclose(joined, network(signal), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), st.integers(1, 5))
@torch.no_grad()
def test_windows_that_grow_equal_the_whole(blocks, size, first):
    network = stack(2, 3)
    signal = torch.randn(1, 2, sum(blocks), dtype=torch.float64)
    stage = Windows(network, size=size, halo=2, first=first)
    joined = torch.cat(list(run([stage], signal.split(blocks, dim=-1))), dim=-1)
    assert torch.allclose(joined, network(signal), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), st.integers(1, 5))
@torch.no_grad()
def test_a_function_that_cuts_its_context_off_computes_less_and_the_same(blocks, size, first):
    blocks_of_layers = ConvNextStack(width=2, layers=2, kernel_size=3).double()
    signal = torch.randn(1, 2, sum(blocks), dtype=torch.float64)

    def apply(window: torch.Tensor, left: int = 0, right: int = 0) -> torch.Tensor:
        return blocks_of_layers(window.mT, left, right).mT

    stage = Windows(apply, size=size, halo=2, first=first, cuts=True)
    joined = torch.cat(list(run([stage], signal.split(blocks, dim=-1))), dim=-1)
    assert torch.allclose(joined, apply(signal), atol=1e-12)


@pytest.mark.parametrize("read", [0, 3, 10, 29])
@torch.no_grad()
def test_a_saved_chain_continues_exactly(read):
    """Whatever it has read, and between any two of its pieces."""
    signal = torch.randn(1, 2, 30, dtype=torch.float64)

    def chain() -> list[Windows]:
        return [Windows(stack(1, 3), size=8, halo=1, first=2), Windows(torch.neg, size=3, halo=0)]

    whole = torch.cat(list(run(chain(), [signal])), dim=-1)
    before, after = chain(), chain()
    before[0].input.push(signal[..., :read])
    pieces = [piece for piece in [pull(before)] if piece is not None]
    for stage, saved in zip(after, before, strict=True):
        stage.load_state_dict(saved.state_dict())
    pieces += run(after, [signal[..., read:]])
    assert torch.equal(torch.cat(pieces, dim=-1), whole)


def test_blocks_grow():
    assert [grown(16, 40, index) for index in range(5)] == [16, 24, 36, 40, 40]
    assert grown(16, 128, 10**9) == 128
    assert grown(30, 8, 0) == 8


def averages(audio: torch.Tensor) -> torch.Tensor:
    """Two outputs per three inputs, each seeing its neighbors; a ragged end counts as whole."""
    missing = -audio.shape[-1] % 3
    sums = nn.functional.pad(audio, (0, missing)).unflatten(-1, (-1, 3)).sum(-1)
    wide = nn.functional.pad(sums, (1, 1))
    mean = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return torch.stack([mean, -mean], dim=-1).flatten(-2)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 5))
def test_units_in_and_out(blocks, size):
    signal = torch.randn(1, 1, sum(blocks), dtype=torch.float64)
    pieces = windowed(
        signal.split(blocks, dim=-1), averages, size=size, halo=1, units_in=3, units_out=2
    )
    assert torch.allclose(torch.cat(list(pieces), dim=-1), averages(signal), atol=1e-12)


def test_windows_come_as_soon_as_they_can():
    """What is buffered stays below a window and its context, however long the stream."""
    longest = 0

    def apply(window: torch.Tensor) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, window.shape[-1])
        return window

    read = 0

    def blocks():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield torch.zeros(1, 1)

    written = 0
    for piece in windowed(blocks(), apply, size=8, halo=3):
        written += piece.shape[-1]
        assert read - written <= 8 + 3 + 1
    assert written == 1000
    assert longest <= 3 + 8 + 3 + 1


def test_an_empty_stream_gives_nothing():
    assert list(windowed([], torch.neg, size=4, halo=1)) == []
    assert list(windowed([torch.zeros(1, 0)], torch.neg, size=4, halo=1)) == []


@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_one_window_sees_both_edges(length):
    signal = torch.randn(1, 2, length).double()
    network = stack(2, 3)
    joined = torch.cat(list(windowed([signal], network, size=8, halo=2)), dim=-1)
    assert torch.allclose(joined, network(signal), atol=1e-12)
