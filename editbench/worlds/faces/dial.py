"""Three dials: worlds of the same faces that differ in one number.

The entanglement dial turns a correlation. At setting rho the copula ties age to eyeglasses by rho
and beard to long hair by -rho; other traits are independent.

The linearity dial turns lambda, the weight of the term that straightens the traits in W
(editbench.worlds.linearity), under the world's own law: at 0 W is as curved as it comes out.

The curvature dial turns no training: it is the world's own generator, seen through a W that is
curved by a known amount (editbench.networks.twist).

Renderer, teacher and judge are those of the `faces` world (both classifiers were trained without
correlations), so what changes from world to world is the generator. Those of the first two dials
went on from the world's own; docs/entanglement_dial.md and docs/linearity_dial.md say for how long.
"""

from __future__ import annotations

from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least, check_kind
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2
from editbench.networks.twist import TwistedGenerator
from editbench.worlds.faces import RESOLUTION
from editbench.worlds.faces import load_generator as load_faces
from editbench.worlds.faces import weights_path as faces_path
from editbench.worlds.faces.factors import FactorLaw

# At 1 the copula would be singular: the traits could not be told apart at all.
SETTINGS = (0.0, 0.3, 0.6, 0.9)
# Of lambda, beside the world's own.
LINEARITIES = (0.0, 1.0)
OWN_LINEARITY = 0.3
# Of the curvature, radians a standard deviation: from the world's own W, in which smiles are
# separated by a straight cut with an AUC of .99, to one in which they are with .81, nearly as in
# the W of the first world that was trained here (.79). Chosen by this span, before any method was run.
CURVATURES = (0.0, 0.3, 0.6, 1.0)
TURNED = 32  # principal components that are turned, of 128: they have 92 % of W's variance
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
    """The generator of a setting of the correlation dial.

    Args:
        rho: correlation of the pairs in PAIRS.
        weights: a file instead of the one of the package.
        truncation_psi: of W; 1 does not truncate.
        device: of the network.

    Raises:
        EditbenchError: the package has no network of this setting.
    """
    # A file of the user's may have any rho.
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


def linear_path(linearity: float) -> Path:
    """Where the package keeps the generator of a setting of the linearity dial."""
    folder = Path(__file__).parent / "weights" / "dial"
    return folder / f"linear{linearity:.1f}_{RESOLUTION}.safetensors"


def load_linear(
    linearity: float,
    weights: str | Path | None = None,
    truncation_psi: float = 1.0,
    device: str = "cpu",
) -> StyleGAN2Generator:
    """The generator of a setting of the linearity dial.

    Args:
        linearity: lambda.
        weights: a file instead of the one of the package.
        truncation_psi: of W.
        device: of the network.

    Raises:
        EditbenchError: the package has no network of this setting.
    """
    if weights is None and linearity == OWN_LINEARITY:
        return load_faces(None, truncation_psi, device)
    if weights is None and linearity not in LINEARITIES:
        known = ", ".join(map(str, sorted((*LINEARITIES, OWN_LINEARITY))))
        raise EditbenchError(
            f"generator.linearity={linearity}: the package has {known}; train another with "
            f"`editbench world train-gan --linearity {linearity}` and give it as generator.weights"
        )
    return StyleGAN2Generator.from_file(weights or linear_path(linearity), truncation_psi, device)


def load_curved(
    curvature: float,
    weights: str | Path | None = None,
    truncation_psi: float = 1.0,
    device: str = "cpu",
) -> TwistedGenerator:
    """The world's generator, seen through a curved W.

    Args:
        curvature: radians by which planes of W turn for a standard deviation; any number from 0 on.
        weights: a file instead of the one of the package.
        truncation_psi: of W, before it is curved.
        device: of the network.

    Raises:
        EditbenchError: a curvature that is no finite number from 0 on.
    """
    key = "generator.curvature"
    check_kind(key, curvature, "float", CURVATURES[1])
    check_at_least(key, curvature, 0)
    network = StyleGAN2.from_file(weights or faces_path("generator"))
    return TwistedGenerator(network, curvature, TURNED, truncation_psi).to(device)
