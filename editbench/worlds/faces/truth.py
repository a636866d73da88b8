"""The renderer itself as a generator, its factors as the codes: every answer is known.

Z (N, 20): standard normals, pushed through the world's law. W (N, 16): the factors, in units that
agree: a trait's amount from one clear class (0) to the other (1), the shares of the hair's
colours, the head's turn in pose bins, then the nuisances. A walk in W may leave the law of the
data (a half-opaque pair of glasses, an old face without its usual glasses); what is drawn is
always a face: codes out of range are drawn as the nearest that is in range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from scipy.special import ndtr
from torch import Tensor

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import digest
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.worlds.faces import RESOLUTION, attributes
from editbench.worlds.faces.factors import (
    BINARY,
    HAIR_COLORS,
    TRAITS,
    YAW_BINS,
    YAW_STEP,
    FactorLaw,
    Factors,
    factors_from,
)
from editbench.worlds.faces.renderer import render

NORMALS = len(TRAITS)
UNIFORMS = len(TRAITS) + 6
HAIR = slice(len(BINARY), len(BINARY) + len(HAIR_COLORS))
# Columns of a code; slices where a factor has several.
YAW = HAIR.stop
SKIN = HAIR.stop + 1
BACKGROUND = slice(HAIR.stop + 2, HAIR.stop + 5)
SIZE = HAIR.stop + 5
WIDTH = SIZE + 1
FRONT = len(YAW_BINS) // 2
FURTHEST = len(YAW_BINS) / 2  # bins from the front to the outer end of the last
# The name of law, drawing and codes. It stands for weights, which this generator does not have:
# starts are drawn by it, so it must not change with a comment. It needs another value wherever a
# factor or a picture changes; tests/test_ground_truth.py compares both with pinned ones.
DRAWING = [
    "a815cd44533d7a1691fce2fd46fc01df0b5255123dfcaabb25770576430cf1af",
    "0530ab17f0dd228b10f6fc3a18f20226c64e8f7080489bf030035642bf8a3c13",
    "3cc5a3efc310b3306da20f63c5b8b54297578acf8a84e7dcfaaaa669e99d35c7",
    "age drawn by lines, eye bags, jowls and hairline; grey leaves the hue",
    "amounts of binary traits half-normal about the threshold",
]


class RenderGenerator(Generator):
    """The world's renderer. Differentiable in W, not in Z, where the law draws classes.

    Args:
        margin: of the factor law, in [0, 1], see `FactorLaw`; None: the world's own, which is 0.
        correlations: of the factor law; None: the world's own.
        resolution: of the pictures.

    Raises:
        EditbenchError: no such margin or resolution.
        ValueError: correlations that cannot be.
    """

    spaces = (Space.Z, Space.W)
    z_dim = NORMALS + UNIFORMS
    w_dim = WIDTH

    def __init__(
        self,
        margin: float | None = None,
        correlations: Mapping[str, float] | None = None,
        resolution: int = RESOLUTION,
    ) -> None:
        super().__init__()
        if not (margin is None or 0 <= margin <= 1) or resolution < 1:
            raise EditbenchError(
                "generator.margin lies between 0 and 1 and generator.resolution is at least 1, got "
                f"margin={margin}, resolution={resolution}"
            )
        law = FactorLaw() if correlations is None else FactorLaw(correlations=dict(correlations))
        self.law = law if margin is None else replace(law, margin=float(margin))
        self.law.correlation_matrix()  # an impossible one is an error here, not in the first batch
        self.resolution = int(resolution)
        self.true_attributes = attributes()
        self.digest = digest([asdict(self.law), self.resolution, DRAWING])

    def map(self, z: Tensor) -> Tensor:
        """z (N, 20) standard normals -> the factors of N faces of the law, (N, 16)."""
        if z.requires_grad:
            raise Unsupported("generator=renders has no derivative in Z: use an editor of W")
        values = z.double().cpu().numpy()
        factors = factors_from(self.law, values[:, :NORMALS], ndtr(values[:, NORMALS:]))
        return to_codes(factors).to(z)

    def _w(self, codes: Codes) -> Tensor:
        return self.map(codes.values) if codes.space == Space.Z else codes.values

    def _decode(self, codes: Codes) -> Tensor:
        return render(to_factors(self._w(codes)), self.resolution)

    def true_labels(self, codes: Codes) -> Tensor:
        """True classes of N codes of Z or W: (N, 7), in the order of `true_attributes`."""
        return to_factors(self._w(codes)).labels()

    def true_margins(self, codes: Codes, attribute: str, target: Tensor) -> Tensor:
        """How far inside a class: codes of Z or W, target (N,) -> (N,). See `margins`."""
        return margins(self._w(codes), attribute, target)


def to_codes(factors: Factors) -> Tensor:
    """Factors of N faces -> W codes (N, 16) float32."""
    columns = [
        factors.amounts,
        factors.hair,
        factors.yaw[:, None] / YAW_STEP,
        factors.skin[:, None],
        factors.background,
        factors.size[:, None],
    ]
    return torch.cat(columns, 1)


def to_factors(w: Tensor) -> Factors:
    """W codes (N, 16) -> the nearest factors that can be drawn."""
    hair = w[:, HAIR].clamp(min=0)
    # Shares of the colours, equal ones where no colour is left.
    share = hair.sum(1, keepdim=True)
    hair = torch.where(share > 0, hair / share.clamp_min(1e-12), 1 / len(HAIR_COLORS))
    return Factors(
        w[:, : len(BINARY)].clamp(0, 1),
        hair,
        YAW_STEP * w[:, YAW].clamp(-FURTHEST, FURTHEST),
        w[:, SKIN].clamp(0, 1),
        w[:, BACKGROUND].clamp(0, 1),
        # Beyond that a face would fill or leave the picture.
        w[:, SIZE].clamp(0.5, 1.5),
    )


def margins(w: Tensor, attribute: str, target: Tensor) -> Tensor:
    """Signed distance from the true threshold of a class, in amounts.

    It is 0 on the threshold, 1/2 at the clearest member, negative outside. Binary: the amount
    beyond 1/2. Hair: half the lead of the colour's share over the next. Yaw: bins inside the
    pose; the outermost poses have no outer end.

    Args:
        w: (N, 16) codes.
        attribute: one of the traits.
        target: (N,) classes.

    Returns (N,).
    """
    if attribute in BINARY:
        return (w[:, BINARY.index(attribute)].clamp(0, 1) - 0.5) * (2 * target - 1)
    if attribute == "yaw":
        y = w[:, YAW].clamp(-FURTHEST, FURTHEST) + FRONT
        gap = (y - target).abs()
        last = len(YAW_BINS) - 1
        beyond = ((target == 0) & (y < 0)) | ((target == last) & (y > last))
        return torch.where(beyond, 0.5, 0.5 - gap)
    hair = to_factors(w).hair
    own = torch.nn.functional.one_hot(target, len(HAIR_COLORS)).bool()
    return (hair[own] - hair.masked_fill(own, -1).amax(1)) / 2


def towards(w: Tensor, attribute: str, target: Tensor, length: float) -> Tensor:
    """Move the one factor of an attribute towards the clearest member of a class, no further.

    Every other coordinate is the same to the bit. Hair: the colour's share grows, the others
    shrink in proportion, so that no third colour takes the lead.

    Args:
        w: (N, 16) codes.
        attribute: one of the traits.
        target: (N,) classes.
        length: of the move, in amounts.

    Returns (N, 16).

    Raises:
        UnknownName: no such attribute.
    """
    attributes()[attribute]  # raises where there is none
    out = w.clone()
    if attribute == "hair_color":
        own = torch.nn.functional.one_hot(target, len(HAIR_COLORS)).bool()
        hair = w[:, HAIR]
        share = hair[own].unsqueeze(1)
        grown = (share + length).clamp(max=1)
        # 1e-12: a face whose hair is all of that colour has no rest to shrink.
        rest = hair * ((1 - grown) / (1 - share).clamp_min(1e-12))
        out[:, HAIR] = torch.where(own, grown, rest)
        return out
    if attribute == "yaw":
        column = YAW
        goal = target - FRONT
    else:
        column = BINARY.index(attribute)
        goal = target
    out[:, column] = w[:, column] + (goal - w[:, column]).clamp(-length, length)
    return out


def exchange(w: Tensor, attribute: str, target: int) -> Tensor:
    """The same faces as members of a class, each as clear a member of it as of its own before.

    Every other factor is the same to the bit, and so is a face that has the class already. Under
    a law that draws all classes of a trait alike, which this world's do, the factor has the law's
    distribution given the class; only its dependence on the other traits is gone.

    Args:
        w: (N, 16) codes.
        attribute: one of the traits.
        target: the class, by index.

    Returns (N, 16).

    Raises:
        UnknownName: no such attribute.
    """
    known = attributes()
    known[attribute]  # raises where there is none
    out = w.clone()
    label = to_factors(w).labels()[:, known.index(attribute)]
    if attribute == "hair_color":
        # The leading colour and the wanted one change places.
        hair = w[:, HAIR]
        lead = hair.gather(1, label[:, None])
        wanted = hair[:, target : target + 1].clone()
        out[:, HAIR] = hair.scatter(1, label[:, None], wanted)
        out[:, HAIR.start + target] = lead[:, 0]
        return out
    if attribute == "yaw":
        # By whole poses: the turn within the pose stays.
        out[:, YAW] = w[:, YAW] + (target - label)
        return out
    column = BINARY.index(attribute)
    # Mirrored at the threshold.
    out[:, column] = torch.where(label == target, w[:, column], 1 - w[:, column])
    return out
