"""Noise levels of the sampling steps for flow matching."""

from __future__ import annotations

import numpy as np

SIGMA_SCHEDULES = ("linear", "linear_quadratic")

_EMULATED_STEPS = 1000


def sigma_schedule(name: str, num_inference_steps: int) -> list[float]:
    """Noise levels at which the model is asked, falling from 1; the scheduler adds the final 0 and its
    shift.

    "linear" takes equal steps. "linear_quadratic" is the schedule of Movie Gen, which the transformer
    variant of Through-The-Mask samples with: its first half follows a linear schedule of 1000 steps,
    because most of a video is decided where the noise is strong; the rest goes to 0 on a parabola. The
    parabola's slope at the joint is not stated; it goes on with the slope of the linear part here, so that
    the step length never jumps.

    Args:
        name: one of ``SIGMA_SCHEDULES``.
        num_inference_steps: how many levels, at least 1.

    Raises:
        ValueError: another name.
    """
    if name not in SIGMA_SCHEDULES:
        raise ValueError(f"sigmas is {name!r}; expected one of {', '.join(SIGMA_SCHEDULES)}.")
    steps = np.arange(num_inference_steps, dtype=np.float64)
    if name == "linear" or num_inference_steps >= _EMULATED_STEPS:
        done = steps / num_inference_steps
    else:
        half = num_inference_steps // 2
        rest = num_inference_steps - half
        after = np.maximum(steps - half, 0)
        bend = (1 - num_inference_steps / _EMULATED_STEPS) / rest**2
        done = steps / _EMULATED_STEPS + bend * after**2
    return [float(value) for value in 1 - done]
