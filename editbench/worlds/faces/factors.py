"""The factors of the `faces` world: traits drawn through a Gaussian copula, and nuisances.

A trait is rendered from a continuous amount (a half-opaque pair of glasses exists), so that an edit can pass through
it. Data faces keep a `margin` from every decision threshold; the classifiers are trained with margin 0, which puts
their boundaries at the true thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from editbench.seeding import normals, uniforms

BINARY = ("smile", "eyeglasses", "beard", "long_hair", "age")
HAIR_COLORS = ("black", "brown", "blond", "red", "blue")
YAW_BINS = ("left", "half_left", "front", "half_right", "right")
YAW_STEP = 16.0  # degrees between the centres of neighbouring bins
TRAITS = (*BINARY, "hair_color", "yaw")
CLASSES: dict[str, tuple[str, ...]] = {
    "smile": ("neutral", "smiling"),
    "eyeglasses": ("without", "with"),
    "beard": ("shaven", "bearded"),
    "long_hair": ("short", "long"),
    "age": ("young", "old"),
    "hair_color": HAIR_COLORS,
    "yaw": YAW_BINS,
}
PRIORS: dict[str, tuple[float, ...]] = {
    "smile": (0.5, 0.5),
    "eyeglasses": (0.6, 0.4),
    "beard": (0.6, 0.4),
    "long_hair": (0.5, 0.5),
    "age": (0.6, 0.4),
    "hair_color": (0.22, 0.2, 0.2, 0.19, 0.19),
    "yaw": (0.17, 0.2, 0.26, 0.2, 0.17),
}
CORRELATIONS: dict[str, float] = {
    "age,eyeglasses": 0.45,
    "age,beard": 0.35,
    "beard,long_hair": -0.5,
    "smile,age": -0.2,
}


@dataclass(frozen=True)
class FactorLaw:
    """The distribution of the factors.

    Args:
        correlations: copula (latent normal) correlation of trait pairs, key "a,b"; the rest is 0.
        priors: class probabilities of each trait.
        margin: distance kept from a decision threshold, as a share of the half-width of a class (0: none, 1: every
            trait sits exactly at its class centre).
    """

    correlations: dict[str, float] = field(default_factory=lambda: dict(CORRELATIONS))
    priors: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(PRIORS))
    margin: float = 0.2

    def correlation_matrix(self) -> np.ndarray:
        """(7, 7) copula correlation in the order of TRAITS; an invalid one is a ValueError."""
        matrix = np.eye(len(TRAITS))
        for key, rho in self.correlations.items():
            names = [name.strip() for name in key.split(",")]
            if len(names) != 2 or any(name not in TRAITS for name in names):
                raise ValueError(f"correlation key '{key}': expected 'trait,trait' out of {', '.join(TRAITS)}")
            i, j = (TRAITS.index(name) for name in names)
            matrix[i, j] = matrix[j, i] = rho
        if np.linalg.eigvalsh(matrix)[0] <= 1e-9:
            raise ValueError("the trait correlations are not positive definite: lower the strongest of them")
        return matrix


@dataclass
class Factors:
    """A batch of N faces. amounts (N, 5) in [0, 1]; hair (N, 5) weights that sum to 1; yaw (N,) degrees;
    nuisances: skin (N,) in [0, 1], background (N, 3) in [0, 1], size (N,) about 1."""

    amounts: Tensor
    hair: Tensor
    yaw: Tensor
    skin: Tensor
    background: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.yaw)

    def labels(self) -> Tensor:
        """True class of every trait: (N, 7) int64 in the order of TRAITS."""
        yaw = (self.yaw / YAW_STEP).round().clamp(-2, 2) + 2
        return torch.cat([self.amounts > 0.5, self.hair.argmax(1, keepdim=True), yaw[:, None]], 1).long()

    def to(self, device: torch.device | str) -> Factors:
        return Factors(**{name: value.to(device) for name, value in vars(self).items()})


def sample_factors(law: FactorLaw, seed: int, start: int, stop: int, stream: str = "faces") -> Factors:
    """Factors of faces start..stop-1; face i depends on (seed, stream, i) alone."""
    return factors_from(law, normals(seed, f"{stream}/traits", start, stop, len(TRAITS)),
                        uniforms(seed, f"{stream}/spread", start, stop, len(TRAITS) + 6))


def factors_from(law: FactorLaw, independent: np.ndarray, spread: np.ndarray) -> Factors:
    """Factors of N faces from standard normals (N, 7) of the traits' classes and uniforms (N, 13) of all the rest."""
    latent = independent @ np.linalg.cholesky(law.correlation_matrix()).T
    inside = (1 - law.margin) * spread[:, : len(TRAITS)]  # distance from the clearest member of the class, in [0, 1)
    cell = {
        trait: np.searchsorted(np.cumsum(law.priors[trait])[:-1], ndtr(latent[:, column]))
        for column, trait in enumerate(TRAITS)
    }
    amounts = np.stack([np.abs(cell[trait] - 0.5 * inside[:, i]) for i, trait in enumerate(BINARY)], 1)
    yaw = YAW_STEP * (cell["yaw"] - 2 + 0.5 * (2 * inside[:, TRAITS.index("yaw")] - (1 - law.margin)))
    # Hair mixes its class colour with another one, which stays the minority.
    rows, color, mix = np.arange(len(latent)), cell["hair_color"], 0.5 * inside[:, TRAITS.index("hair_color")]
    other = (color + 1 + (spread[:, -1] * (len(HAIR_COLORS) - 1)).astype(int)) % len(HAIR_COLORS)
    hair = np.zeros((len(latent), len(HAIR_COLORS)))
    hair[rows, color] = 1 - mix
    hair[rows, other] = mix
    nuisance = spread[:, len(TRAITS) :]
    values = {
        "amounts": amounts,
        "hair": hair,
        "yaw": yaw,
        "skin": nuisance[:, 0],
        "background": nuisance[:, 1:4],
        "size": 0.9 + 0.16 * nuisance[:, 4],
    }
    return Factors(**{name: torch.from_numpy(np.ascontiguousarray(v)).float() for name, v in values.items()})
