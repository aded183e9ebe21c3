"""Every random draw comes from a generator keyed by what it is for, never from global state."""

import hashlib

import torch


def derive_seed(seed: int, *key: int | str) -> int:
    """Mix a seed and a key into one 63-bit integer (BLAKE2b of their text).

    Args:
        seed: the user's seed.
        key: what the draw is for, for example ``("decoder", item, window)``.

    Returns:
        An integer in [0, 2**63): equal for equal arguments on every machine and Python version.
    """
    text = repr((int(seed), *key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *key: int | str) -> torch.Generator:
    """Make a CPU generator keyed by ``(seed, *key)``; CPU draws are equal on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, *key))
