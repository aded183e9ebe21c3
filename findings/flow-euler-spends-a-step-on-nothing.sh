#!/usr/bin/env bash
# Expected: FlowMatchEulerDiscreteScheduler.set_timesteps(N) takes N steps of equal size from noise to data,
#   as its `shift` of 1 says; with `shift` 3, the steps that shifting equal ones by 3 gives.
# Found: N - 1 equal steps lead to .001, and the last goes from there to 0, so two steps do the work of
#   one. With `shift` 3 the end is shifted twice: .0089. Both are as expected only where the caller gives
#   sigmas, as the pipelines of diffusers do.
# Matters: decoders of few steps are compared step by step; "2 steps are no better than 1" is then a
#   property of the scheduler. Partita solves in equal steps of its own (decoder/sampler.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

print("diffusers", version("diffusers"), "torch", torch.__version__)
DEVIATION = 0.5


def solve(steps: int, shift: float, own: bool) -> tuple[list[float], float]:
    """Steps, and the deviation of what normal data of DEVIATION become along the exact velocity."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    if own:
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    else:
        scheduler.set_timesteps(steps)
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for time, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        kept = 1 - sigma
        variance = kept**2 * DEVIATION**2 + sigma**2
        velocity = x * (sigma - kept * DEVIATION**2) / variance  # E[noise - data | x]
        x = scheduler.step(velocity, time, x).prev_sample
    return [round(float(sigma), 4) for sigma in scheduler.sigmas], float(x.std())


made = {}
for steps, shift in ((1, 1.0), (2, 1.0), (4, 1.0), (4, 3.0)):
    for own in (False, True):
        sigmas, deviation = made[steps, shift, own] = solve(steps, shift, own)
        said = "sigmas given" if own else "set_timesteps"
        print(f"{steps} steps, shift {shift:g}, {said:13} {sigmas} -> deviation {deviation:.3f}")

assert made[2, 1.0, False][0] == [1.0, 0.001, 0.0]
assert made[2, 1.0, True][0] == [1.0, 0.5, 0.0]
assert abs(made[2, 1.0, False][1] - made[1, 1.0, False][1]) < 0.01
assert abs(made[2, 1.0, True][1] - made[1, 1.0, True][1]) > 0.1
assert made[4, 1.0, False][0] == [1.0, 0.667, 0.334, 0.001, 0.0]
assert made[4, 3.0, False][0][3] == 0.0089
assert made[4, 3.0, True][0] == [1.0, 0.9, 0.75, 0.5, 0.0]
PYTHON
