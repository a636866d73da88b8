"""Worlds in closed form, with every space: what an editor does here can be worked out by hand.

Linear: the decoded sample is the code (in W+ the mean of the rows, in S the code itself, under a weight shift
(I + t X) w), the logits are linear in it. Curved: the first attribute is whether two channels lie in a disc; along one
fixed direction at most half of the starts outside can get there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editbench.bank.bank import Split
from editbench.base.attributes import Attribute, Attributes
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.layers import shifted
from editbench.walk.editor import FitData, Walk

BINARY = Attributes([Attribute(name, ("no", "yes")) for name in ("a", "b", "c")])
MIXED = Attributes(
    [
        Attribute("a", ("no", "yes")),
        Attribute("kind", ("x", "y", "z")),
        Attribute("angle", ("left", "half", "front", "right"), ordered=True),
    ]
)
RGB = 3  # the last channels of S belong to a layer that gives colours


class ToyGenerator(Generator):
    """decode(w) = w; a row of W+ counts 1 / num_ws; S has two layers, 'conv' and 'rgb'; the weight of 'conv' is I."""

    spaces = (Space.Z, Space.W, Space.W_PLUS, Space.S, Space.THETA)
    output = "w"

    def __init__(self, dim: int, num_ws: int = 4) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.num_ws = dim, dim, num_ws
        self.layer_names, self.style_sizes = ("conv", "rgb"), (dim - RGB, RGB)
        self.weight = nn.Parameter(torch.eye(dim).reshape(dim, dim, 1, 1), requires_grad=False)
        self.conv = nn.Identity()
        self.digest = f"toy {dim} {num_ws}"

    def map(self, z: Tensor) -> Tensor:
        return 2 * z

    def styles(self, w_plus: Tensor) -> Tensor:
        return w_plus.mean(1)

    def kernels(self) -> dict[str, Tensor]:
        return {"conv": self.weight}

    def _decode(self, codes: Codes) -> Tensor:
        x = codes.values
        x = (
            x.mean(1)
            if codes.space == Space.W_PLUS
            else self.map(x)
            if codes.space == Space.Z
            else x
        )
        if codes.shift is not None:
            x = shifted(lambda y, weight: y @ weight.flatten(1).T, x, self.weight, codes.shift)
        return self.conv(x)


class LinearScorer(Scorer):
    """logits = x @ normals.T + bias; normals (width, d)."""

    input = "w"
    normals: Tensor
    bias: Tensor

    def __init__(self, attributes: Attributes, normals: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.attributes = attributes
        self.register_buffer("normals", normals)
        self.register_buffer("bias", torch.zeros(len(normals)) if bias is None else bias)
        self.digest = f"linear {normals.double().sum():.12g} {0 if bias is None else bias.double().sum():.12g}"

    def features(self, decoded: Tensor) -> Tensor:
        """The sample itself."""
        return decoded

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded @ self.normals.to(decoded).T + self.bias.to(decoded)


class CurvedScorer(Scorer):
    """logits of a, b, c: RADIUS - |(x0, x1)|, x2, x3.

    A start at radius r outside is r - RADIUS away from the boundary, straight inwards. A fixed direction u brings it
    there only if <(x0, x1), u> < 0, which holds for half of a law that is symmetric.
    """

    input = "w"
    attributes = BINARY
    digest = "curved"
    RADIUS = 2.35  # of (x0, x1) ~ N(0, 4 I) half lies within

    def features(self, decoded: Tensor) -> Tensor:
        """The sample itself."""
        return decoded

    def forward(self, decoded: Tensor) -> Tensor:
        return torch.stack(
            [self.RADIUS - decoded[:, :2].norm(dim=1), decoded[:, 2], decoded[:, 3]], 1
        )


def normals_for(attributes: Attributes, dim: int, seed: int = 0, overlap: float = 0.0) -> Tensor:
    """Unit normals (width, d); `overlap` is a common part that makes them dependent on one another."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(
        torch.randn(dim, attributes.width + 1, generator=rng, dtype=torch.float64)
    ).Q.T
    mixed = rows[:-1] + overlap * rows[-1:]
    return (mixed / mixed.norm(dim=1, keepdim=True)).float()


def fit_data(
    attributes: Attributes = BINARY,
    dim: int = 24,
    n: int = 1500,
    seed: int = 0,
    overlap: float = 0.5,
    bias: Tensor | None = None,
    scorer: Scorer | None = None,
) -> FitData:
    """A bank of n fit and 200 tune samples, w ~ N(0, 4 I), under a linear teacher or the one that is given."""
    z = torch.randn(n + 200, dim, generator=torch.Generator().manual_seed(seed + 100))
    generator = ToyGenerator(dim)
    teacher = scorer or LinearScorer(attributes, normals_for(attributes, dim, seed, overlap), bias)
    w = generator.map(z)
    logits, index = teacher(w), torch.arange(n + 200)
    fit, tune = (Split(index[s], z[s], w[s], logits[s]) for s in (slice(0, n), slice(n, None)))
    return FitData(generator, teacher, fit, tune, teacher.attributes.log_odds(logits).std(0), seed)


def make_walk(
    data: FitData,
    space: Space,
    attribute: str,
    n: int = 40,
    seed: int = 5,
    targets: Sequence[int] | None = None,
) -> Walk:
    """n new starts with their source class; as target the next class (of the last one, the first), or `targets`."""
    z = torch.randn(n, data.generator.z_dim, generator=torch.Generator().manual_seed(seed))
    latent = z if space == Space.Z else data.generator.map(z)
    codes = data.generator.lift(latent, space)
    source = data.attributes.labels(data.teacher(data.generator.map(z)), attribute)
    target = (
        (source + 1) % len(data.attributes[attribute].classes)
        if targets is None
        else torch.tensor(targets)
    )
    start = torch.arange(n) * 7 + 1000
    return Walk(attribute, start, codes, codes, source, target, latent=latent)
