"""The factors of the `faces` world: traits drawn through a Gaussian copula, and nuisances.

A trait is rendered from a continuous amount (a half-opaque pair of glasses exists), so that an
edit can pass through it. Amounts of binary traits are normally distributed about the decision
threshold, as traits of photographs are: most faces are not far from it, few are extreme.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from editbench.base.devices import to_device
from editbench.base.seeding import normals, uniforms

# The order of the labels, and of the columns of the amounts.
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
# Uneven, as in photographs, but no class is rare.
PRIORS: dict[str, tuple[float, ...]] = {
    "smile": (0.5, 0.5),
    "eyeglasses": (0.6, 0.4),
    "beard": (0.6, 0.4),
    "long_hair": (0.5, 0.5),
    "age": (0.6, 0.4),
    "hair_color": (0.22, 0.2, 0.2, 0.19, 0.19),
    "yaw": (0.17, 0.2, 0.26, 0.2, 0.17),
}
# The world's entanglement: what an editor that follows the data picks up.
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
        margin: distance kept from a decision threshold, as a share of the half-width of a class
            (0: none, 1: every trait sits exactly at its class centre).
        reach: distance of the clearest members of a class from the threshold, of the binary traits,
            in standard deviations of the amount. Members further away are drawn as the clearest.
    """

    correlations: dict[str, float] = field(default_factory=lambda: dict(CORRELATIONS))
    priors: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(PRIORS))
    # A gap makes traits that are on or off: W then jumps where a boundary should be.
    margin: float = 0.0
    reach: float = 1.5

    def correlation_matrix(self) -> np.ndarray:
        """(7, 7) copula correlation in the order of TRAITS; an invalid one is a ValueError."""
        matrix = np.eye(len(TRAITS))
        for key, rho in self.correlations.items():
            names = [name.strip() for name in key.split(",")]
            if len(names) != 2 or any(name not in TRAITS for name in names):
                raise ValueError(
                    f"correlation key '{key}': expected 'trait,trait' out of {', '.join(TRAITS)}"
                )
            i = TRAITS.index(names[0])
            j = TRAITS.index(names[1])
            matrix[i, j] = rho
            matrix[j, i] = rho
        # Pairs are given one by one, and together they may contradict each other.
        if np.linalg.eigvalsh(matrix)[0] <= 1e-9:
            raise ValueError(
                "the trait correlations are not positive definite: lower the strongest of them"
            )
        return matrix


@dataclass
class Factors:
    """The factors of N faces: traits, then nuisances.

    Args:
        amounts: (N, 5) of the binary traits, in [0, 1].
        hair: (N, 5) weights of the colours, which sum to 1.
        yaw: (N,) degrees.
        skin: (N,) tone, in [0, 1].
        background: (N, 3) colour, in [0, 1].
        size: (N,) about 1.
    """

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
        columns = [self.amounts > 0.5, self.hair.argmax(1, keepdim=True), yaw[:, None]]
        return torch.cat(columns, 1).long()

    def to(self, device: torch.device | str) -> Factors:
        device = torch.device(device)
        return Factors(**{name: to_device(value, device) for name, value in vars(self).items()})


def sample_factors(
    law: FactorLaw, seed: int, start: int, stop: int, stream: str = "faces"
) -> Factors:
    """Factors of faces start..stop-1; face i depends on (seed, stream, i) alone."""
    return factors_from(
        law,
        normals(seed, f"{stream}/traits", start, stop, len(TRAITS)),
        uniforms(seed, f"{stream}/spread", start, stop, len(TRAITS) + 6),
    )


def factors_from(law: FactorLaw, independent: np.ndarray, spread: np.ndarray) -> Factors:
    """Factors of N faces from random numbers.

    Args:
        law: their distribution.
        independent: (N, 7) standard normals, of the traits' classes.
        spread: (N, 13) uniforms, of all the rest.
    """
    # The Gaussian copula: correlated normals, each pushed through its own distribution function.
    latent = independent @ np.linalg.cholesky(law.correlation_matrix()).T
    # Distance from the clearest member of the class, in [0, 1), as a share of its half-width.
    inside = spread[:, : len(TRAITS)].copy()
    # Of the binary traits: of the positive half of a normal distribution about the threshold.
    from_threshold = ndtri(0.5 + 0.5 * inside[:, : len(BINARY)]) / law.reach
    inside[:, : len(BINARY)] = 1 - np.minimum(from_threshold, 1)
    inside *= 1 - law.margin
    cell = {}
    for column, trait in enumerate(TRAITS):
        borders = np.cumsum(law.priors[trait])[:-1]
        cell[trait] = np.searchsorted(borders, ndtr(latent[:, column]))
    # Class 0 lies in [0, 1/2), class 1 in (1/2, 1]; the clearest members are 0 and 1.
    columns = [np.abs(cell[trait] - 0.5 * inside[:, i]) for i, trait in enumerate(BINARY)]
    amounts = np.stack(columns, 1)
    # Poses lie on both sides of the centre of their bin.
    off_centre = 0.5 * (2 * inside[:, TRAITS.index("yaw")] - (1 - law.margin))
    yaw = YAW_STEP * (cell["yaw"] - 2 + off_centre)
    # Hair mixes its class colour with another one, which stays the minority.
    rows = np.arange(len(latent))
    color = cell["hair_color"]
    mix = 0.5 * inside[:, TRAITS.index("hair_color")]
    other = (color + 1 + (spread[:, -1] * (len(HAIR_COLORS) - 1)).astype(int)) % len(HAIR_COLORS)
    hair = np.zeros((len(latent), len(HAIR_COLORS)))
    hair[rows, color] = 1 - mix
    hair[rows, other] = mix
    # What no trait says: skin, background and size are independent of all of them.
    nuisance = spread[:, len(TRAITS) :]
    values = {
        "amounts": amounts,
        "hair": hair,
        "yaw": yaw,
        "skin": nuisance[:, 0],
        "background": nuisance[:, 1:4],
        "size": 0.9 + 0.16 * nuisance[:, 4],
    }
    tensors = {}
    for name, value in values.items():
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value)).float()
    return Factors(**tensors)
