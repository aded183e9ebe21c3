"""Inner loops in C (sound.c), for float32 tensors on the CPU whose gradient nobody wants.

``scale_complex`` and ``normalize_complex`` take others too.
"""

import torch
from torch import Tensor, nn

from codec.native.library import NativeError, load_library

PLAIN = (Tensor, nn.Parameter)
"""Not DTensor or what else has no numbers of its own."""


def runs_in_c(*tensors: Tensor) -> bool:
    """Tell whether the functions below take these tensors, and a library is there."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return is_plain(*tensors)


def is_plain(*tensors: Tensor) -> bool:
    """Tell whether C may read these tensors, and a library is there."""
    kinds = {torch.float32, torch.complex64}
    if not all(t.device.type == "cpu" and t.dtype in kinds for t in tensors):
        return False
    if type(tensors[0]) not in PLAIN:
        return False
    try:
        return bool(load_library())
    except NativeError:
        return False


def find_phases(
    levels: Tensor,
    magnitude: Tensor,
    floors: Tensor,
    draws: Tensor,
    phase: Tensor,
    places: tuple[int, int],
    turn_of_bin: float,
    slope_of_growth: float,
) -> Tensor:
    """Do what ``carry_phases``, ``scatter_floor`` and ``turned`` do (codec/phase.py).

    Args:
        levels: (B, F + 2, N) log magnitudes of the frame before, the frames, and the last again.
        magnitude: (B, F, N).
        floors: (B, F) magnitudes below which phases are drawn.
        draws: (B, N) uniform in [0, 1).
        phase: (B, N) of the frame before, in cycles.
        places: where the first frame's draws begin, and how much later those of each next one.
        turn_of_bin: cycles by which a bin's frequency advances in a frame.
        slope_of_growth: cycles per bin for each neper by which the level grows in two frames.

    Returns:
        (B, F, N) complex of modulus one.
    """
    B, F, N = magnitude.shape
    levels, magnitude, floors = levels.contiguous(), magnitude.contiguous(), floors.contiguous()
    draws, cycles = torch.cat([draws, draws], dim=-1), phase.clone()
    room, found = torch.empty(2, N), torch.empty(B, F, N, dtype=torch.complex64)
    for b in range(B):
        load_library().functions.partita_phases(
            *(part[b].data_ptr() for part in (levels, magnitude, draws, cycles, floors)),
            *(part.data_ptr() for part in (*room, found[b])),
            *(F, N, places[0] % N, places[1], turn_of_bin, slope_of_growth),
        )
    return found


def fold(frames: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Add (R, F, n_fft) frames, each times the window -> (R, (F - 1) * hop_length + n_fft)."""
    R, F, width = frames.shape
    frames, window = frames.contiguous(), window.contiguous()
    samples = torch.zeros(R, (F - 1) * hop_length + width)
    pointers = (tensor.data_ptr() for tensor in (frames, window, samples))
    load_library().functions.partita_fold(*pointers, R, F, width, hop_length)
    return samples


def normalize_complex(spectrum: Tensor) -> Tensor:
    """Scale complex numbers to modulus one."""
    if not runs_in_c(spectrum):
        parts = torch.view_as_real(spectrum)
        return spectrum * parts.square().sum(-1).add_(1e-16).rsqrt_()
    spectrum = spectrum.contiguous()
    scaled = torch.empty_like(spectrum)
    functions = load_library().functions
    functions.partita_normalize(spectrum.data_ptr(), scaled.data_ptr(), spectrum.numel())
    return scaled


def scale_complex(spectrum: Tensor, factor: Tensor) -> Tensor:
    """Multiply complex numbers by real ones, of shapes that broadcast."""
    if not runs_in_c(spectrum, factor):
        return spectrum * factor
    spectrum, factor = (part.contiguous() for part in torch.broadcast_tensors(spectrum, factor))
    scaled = torch.empty_like(spectrum)
    pointers = (tensor.data_ptr() for tensor in (spectrum, factor, scaled))
    load_library().functions.partita_scale(*pointers, spectrum.numel())
    return scaled


def mix_bands(
    mono: Tensor, factors: Tensor, blends: Tensor, starts: Tensor, response: Tensor
) -> Tensor:
    """Do what ``ParametricStereo.mix`` does with its factors (codec/stereo.py).

    Args:
        mono: (B, F, bins) complex.
        factors: (3, B, F, N) of the middle, of the side, and of the decorrelated copy in the side.
        blends: (bins,) share of the band above in a bin between two.
        starts: (N + 1,) int32, first bin at or above each band's center, and the number of bins.
        response: (bins,) complex factors of the decorrelated copy.

    Returns:
        (B, 2, F, bins) complex.
    """
    B, F, bins = mono.shape
    mono, response = mono.contiguous(), response.contiguous()
    mixed = torch.empty(B, 2, F, bins, dtype=torch.complex64)
    for b in range(B):
        parts = mono[b], factors[:, b].contiguous(), blends, response, starts, mixed[b]
        pointers = (part.data_ptr() for part in parts)
        load_library().functions.partita_mix(*pointers, F, factors.shape[-1], bins)
    return mixed


def prepare_heads(
    qkv: Tensor, gains: tuple[Tensor, Tensor], rotation: Tensor, num_heads: int, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Normalize and rotate queries and keys.

    Args:
        qkv: (B, T, 3 D) projections.
        gains: (D / H,) of the queries' and of the keys' normalization.
        rotation: (2, T, D / H / 2) cosines and sines.
        num_heads: H.
        epsilon: added to the mean square.

    Returns:
        Two of (B, H, T, D / H).
    """
    B, T, width = qkv.shape
    qkv, rotation = qkv.contiguous(), rotation.contiguous()
    head = width // 3 // num_heads
    found = torch.empty(2, B, num_heads, T, head)
    pointers = (part.data_ptr() for part in (qkv, *gains, *rotation, found))
    load_library().functions.partita_heads(*pointers, B, T, num_heads, head, epsilon)
    return found[0], found[1]
