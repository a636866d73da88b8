"""The entanglement dial: worlds of the same faces that differ in one number, a correlation.

At setting rho the copula ties age to eyeglasses by rho and beard to long hair by -rho; other
traits are independent. Renderer, teacher and judge are those of the `faces` world (both
classifiers were trained without correlations), so what changes from world to world is what the
generator learnt from its data. Each generator went on from the world's own for 96,000 renders of
its law.
"""

from __future__ import annotations

from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.worlds.faces import RESOLUTION
from editbench.worlds.faces.factors import FactorLaw

# At 1 the copula would be singular: the traits could not be told apart at all.
SETTINGS = (0.0, 0.3, 0.6, 0.9)
PAIRS = {("age", "eyeglasses"): 1, ("beard", "long_hair"): -1}  # and the sign that rho has there


def law(rho: float) -> FactorLaw:
    """The distribution of the factors at one setting."""
    return FactorLaw({",".join(pair): sign * rho for pair, sign in PAIRS.items()})


def partner(attribute: str) -> tuple[str, int] | None:
    """The trait that goes with an attribute, and the sign of the correlation.

    None for a trait that is independent.
    """
    for (first, second), sign in PAIRS.items():
        if attribute in (first, second):
            return (second if attribute == first else first), sign
    return None


def weights_path(rho: float) -> Path:
    """Where the package keeps the generator of a setting."""
    return Path(__file__).parent / "weights" / "dial" / f"rho{rho:.1f}_{RESOLUTION}.safetensors"


def load_generator(
    rho: float, weights: str | Path | None = None, truncation_psi: float = 1.0, device: str = "cpu"
) -> StyleGAN2Generator:
    """The generator of a setting; `weights` overrides the file of the package."""
    if weights is None and rho not in SETTINGS:
        known = ", ".join(map(str, SETTINGS))
        raise EditbenchError(
            f"generator.rho={rho}: the package has rho {known}; train another "
            f"with `editbench world train-gan --correlation age,eyeglasses={rho} "
            f"beard,long_hair={-rho}` and give it as generator.weights"
        )
    generator = StyleGAN2Generator.from_file(weights or weights_path(rho), truncation_psi, device)
    # The law of the renders that its pictures are compared with.
    generator.law = law(rho)  # type: ignore[assignment]
    return generator
