"""Networks in closed form, with every space: what an editor does here can be worked out by hand.

The decoded sample is the code (in W+ the mean of the rows, in S the code itself, under a weight shift
(I + t X) w), and the logits are linear in it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from editbench.bank.bank import Split
from editbench.base.attributes import Attribute, Attributes
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.layers import shifted
from editbench.walk.editor import FitData, Walk

# Of both sets together: an option of an editor may name attributes of either.
KNOWN = ("a", "b", "c", "kind", "angle")
BINARY = Attributes([Attribute(name, ("no", "yes")) for name in ("a", "b", "c")], KNOWN)
# One attribute of each kind: of two classes, of many, and of many in an order.
MIXED = Attributes(
    [
        Attribute("a", ("no", "yes")),
        Attribute("kind", ("x", "y", "z")),
        Attribute("angle", ("left", "half", "front", "right"), ordered=True),
    ],
    KNOWN,
)
RGB = 3  # the last channels of S belong to a layer that gives colours
TUNE = 200  # tune samples of `fit_data`


class ToyGenerator(Generator):
    """decode(w) = w; a row of W+ counts 1 / num_ws; S has two layers, 'conv' and 'rgb'."""

    spaces = (Space.Z, Space.W, Space.W_PLUS, Space.S, Space.THETA)
    output = "w"  # there are no pictures: scorers read the sample itself

    def __init__(self, dim: int, num_ws: int = 4) -> None:
        """Make the generator; it has nothing to learn.

        Args:
            dim: of z and w.
            num_ws: rows of W+.
        """
        super().__init__()
        self.z_dim = dim
        self.w_dim = dim
        self.num_ws = num_ws
        self.layer_names = ("conv", "rgb")
        self.style_sizes = (dim - RGB, RGB)
        # The weight of 'conv' is the identity, as a 1x1 kernel.
        self.weight = nn.Parameter(torch.eye(dim).reshape(dim, dim, 1, 1), requires_grad=False)
        # Every decoded sample passes this layer, so that a hook can count them.
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
        if codes.space == Space.W_PLUS:
            x = x.mean(1)
        elif codes.space == Space.Z:
            x = self.map(x)
        if codes.shift is not None:
            x = shifted(lambda y, weight: y @ weight.flatten(1).T, x, self.weight, codes.shift)
        return self.conv(x)


class LinearScorer(Scorer):
    """logits = x @ normals.T + bias."""

    input = "w"
    normals: Tensor  # (width, d)
    bias: Tensor  # (width,)

    def __init__(self, attributes: Attributes, normals: Tensor, bias: Tensor | None = None) -> None:
        """Set the boundaries.

        Args:
            attributes: that are scored.
            normals: (width, d).
            bias: (width,), or None for 0.
        """
        super().__init__()
        self.attributes = attributes
        self.register_buffer("normals", normals)
        self.register_buffer("bias", torch.zeros(len(normals)) if bias is None else bias)
        # Sums stand for a hash: they tell the scorers of one test apart.
        of_bias = 0 if bias is None else bias.double().sum()
        self.digest = f"linear {normals.double().sum():.12g} {of_bias:.12g}"

    def features(self, decoded: Tensor) -> Tensor:
        """The sample itself."""
        return decoded

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded @ self.normals.to(decoded).T + self.bias.to(decoded)


def normals_for(attributes: Attributes, dim: int, seed: int = 0, overlap: float = 0.0) -> Tensor:
    """Unit normals of linear logits.

    Args:
        attributes: that are scored.
        dim: of the samples.
        seed: of the directions.
        overlap: length of a common part, which makes them dependent on one another.

    Returns:
        (width, d).
    """
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(dim, attributes.width + 1, generator=rng, dtype=torch.float64)
    # In float64, so that the normals are orthogonal up to the rounding of their float32.
    rows = torch.linalg.qr(drawn).Q.T
    # The last row is orthogonal to all others: it is what they may have in common.
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
    """What an editor may learn from: n fit and 200 tune samples, w ~ N(0, 4 I).

    Args:
        attributes: of a linear teacher.
        dim: of z and w.
        n: fit samples.
        seed: of the samples, of the teacher, and of the method.
        overlap: see `normals_for`.
        bias: (width,) of a linear teacher.
        scorer: the teacher, in place of a linear one.
    """
    z = torch.randn(n + TUNE, dim, generator=torch.Generator().manual_seed(seed + 100))
    generator = ToyGenerator(dim)
    teacher = scorer or LinearScorer(attributes, normals_for(attributes, dim, seed, overlap), bias)
    w = generator.map(z)
    logits = teacher(w)
    index = torch.arange(n + TUNE)
    fit = Split(index[:n], z[:n], w[:n], logits[:n])
    tune = Split(index[n:], z[n:], w[n:], logits[n:])
    return FitData(generator, teacher, fit, tune, teacher.attributes.log_odds(logits).std(0), seed)


def make_walk(
    data: FitData,
    space: Space,
    attribute: str,
    n: int = 40,
    seed: int = 5,
) -> Walk:
    """New starts with their source class; the target is the next class (of the last, the first).

    Args:
        data: gives the generator and the teacher.
        space: where to walk.
        attribute: that is edited.
        n: starts.
        seed: of the starts.
    """
    z = torch.randn(n, data.generator.z_dim, generator=torch.Generator().manual_seed(seed))
    w = data.generator.map(z)
    latent = z if space == Space.Z else w
    codes = data.generator.lift(latent, space)
    source = data.attributes.labels(data.teacher(w), attribute)
    target = (source + 1) % len(data.attributes[attribute].classes)
    # Indices with gaps, so that an editor that takes them for rows of the batch fails.
    start = torch.arange(n) * 7 + 1000
    return Walk(attribute, start, codes, codes, source, target, latent=latent)
