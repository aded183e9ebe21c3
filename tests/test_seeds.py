"""Seeds depend on their key alone, and on all of it."""

import torch

from codec.seeds import derive_seed, generator

EXPECTED = (2631537505891389924, 8517433783791403562)


def test_the_value_is_the_same_everywhere():
    """Committed values: a change here changes every song of every seed."""
    assert derive_seed(0) == EXPECTED[0]
    assert derive_seed(7, "decoder", 3) == EXPECTED[1]


def test_every_part_of_the_key_counts():
    keys: list[tuple[int | str, ...]] = [
        (),
        ("a",),
        ("b",),
        (1,),
        ("1",),
        ("a", 1),
        (1, "a"),
        (11,),
    ]
    seeds = {derive_seed(seed, *key) for seed in (0, 1) for key in keys}
    assert len(seeds) == 2 * len(keys)


def test_seeds_fit_a_generator():
    seeds = [derive_seed(seed, "x", index) for seed in (-1, 2**70) for index in range(100)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200


def test_generators_draw_alike_and_apart():
    first, second = (torch.rand(4, generator=generator(3, "noise", 5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=generator(3, "noise", 6)))


def test_global_state_is_neither_used_nor_moved():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = torch.rand(4, generator=generator(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(4, generator=generator(3)), first)
