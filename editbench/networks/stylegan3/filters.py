"""Low-pass filters of StyleGAN3: a sinc, or a jinc if radial, with a Kaiser window.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", appendices A and C. They are used
for new networks; converted networks use the filters in their files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def low_pass(taps: int, cutoff: float, half_width: float, rate: float, radial: bool) -> Tensor:
    """A filter of unit sum.

    Args:
        taps: its length.
        cutoff: frequency at which the amplitude is halved, in cycles per image.
        half_width: half the width of the transition band, in cycles per image.
        rate: sampling rate, in samples per image.
        radial: whether it is symmetric under rotation, (taps, taps); otherwise it is (taps,), for
            one axis at a time.

    Returns:
        float32.
    """
    # For an even number of taps, the centre is between two samples.
    place = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    window = _kaiser_window(taps, 2 * half_width / (rate / 2))
    if radial:
        distance = torch.hypot(place[:, None], place[None, :])
        response = jinc(distance, cutoff) * torch.outer(window, window)
    else:
        response = torch.sinc(2 * cutoff * place) * window
    return (response / response.sum()).float()


def jinc(distance: Tensor, cutoff: float) -> Tensor:
    """Impulse response of an ideal circular low-pass, J1(2 pi f r) / (pi r), up to a factor.

    Args:
        distance: r from the centre, as a share of the image's side.
        cutoff: f, in cycles per image.

    Returns:
        Values in the shape of `distance`; 1/2 at the centre.
    """
    x = 2 * math.pi * cutoff * distance
    # The limit at 0, where a filter with an odd number of taps has its middle.
    at_centre = torch.full_like(x, 0.5)
    # torch.where computes both branches; the clamp avoids 0 / 0 in the one that is not taken.
    return torch.where(x == 0, at_centre, torch.special.bessel_j1(x) / x.clamp(min=1e-30))


def _kaiser_window(taps: int, width: float) -> Tensor:
    """The window (taps,) float64 for a transition band of a width, as a share of half the rate.

    Kaiser 1974: the attenuation that is possible with `taps` taps for this width, and its beta.
    """
    # The empirical formulas of scipy.signal.kaiser_atten and kaiser_beta.
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
