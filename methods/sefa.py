"""SeFa: eigenvectors of the weights that the latent code is first multiplied by, as controls.

Shen & Zhou, "Closed-Form Factorization of Latent Semantics in GANs", CVPR 2021. The directions need
neither samples nor training; the teacher then chooses among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.shared.control_search import MIN_EFFECT
from editbench.methods.shared.direction_search import Directions, DirectionSearch
from editbench.methods.shared.layer_choice import scale_ranges
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData

# Of the published code, for 18 rows: all layers, and the bottom, middle and top layers.
RANGES = ((0, 18), (0, 2), (2, 6), (6, 18))
LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
TOLERANCE = 1e-3  # relative error up to which a layer counts as linear in z


class SeFa(DirectionSearch):
    """w_l' = w_l + amount * n_i in the rows l of the range that n_i comes from.

    The n_i are the eigenvectors of A^T A with the largest eigenvalues (eq. 5), where A holds the
    weights of all style affines of the range, concatenated.

    Args:
        semantics: number of directions of each range.
        normalise: scale the weights of each style channel to unit length first, as the published
            code does; the paper's eq. 5 does not.
        space: 'w'; or 'z', where A is the weight of the first layer of a generator without style
            affines.
        ranges: rows [a, b) of W+ whose affines are factorised together; an edit moves these rows.
        strength: in units of StyleGAN2-FFHQ's W, scaled to this W by the ratio of the spreads; in Z
            in its own units.
        step: in the unit of strength.
        search_samples: see DirectionSearch.
        min_effect: see DirectionSearch.

    Raises:
        EditbenchError: an option is out of its range.
    """

    citation = "Shen & Zhou: Closed-Form Factorization of Latent Semantics in GANs, CVPR 2021"
    what = "eigenvectors"
    strength_unit = "units of StyleGAN2-FFHQ's W"

    def __init__(
        self,
        semantics: int = 5,
        normalise: bool = True,
        space: str = "w",
        ranges: Sequence[Sequence[int]] = RANGES,
        strength: float = 3.0,
        search_samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 0.6,
    ) -> None:
        super().__init__(space, ranges, strength, search_samples, min_effect, step)
        if semantics < 1:
            raise EditbenchError(f"method.semantics={semantics} must be at least 1")
        self.semantics = int(semantics)
        self.normalise = normalise
        if self.space == Space.Z:
            self.strength_unit = "units of Z"

    def find_directions(self, data: FitData) -> Directions:
        generator = data.generator
        codes = data.fit.codes(self.space)
        mean = codes.double().mean(0).cpu().numpy()
        notes: dict[str, object] = {}
        if self.space == Space.Z:
            weight = first_weight(generator, codes)
            vectors, values = eigenvectors(weight, self.semantics, self.normalise)
            notes["eigenvalues"] = np.round(values, 4).tolist()
            return Directions(mean, vectors, np.ones(len(vectors)), notes)
        weights = affine_weights(generator, codes)
        rows = []
        bounds = []
        for first, last in scale_ranges(self.ranges, generator.num_ws):
            weight = np.concatenate(weights[first:last], 1)
            vectors, values = eigenvectors(weight, self.semantics, self.normalise)
            rows.append(vectors)
            bounds += [(first, last)] * len(vectors)
            notes[f"eigenvalues.{first}:{last}"] = np.round(values, 4).tolist()
        stacked = np.concatenate(rows)
        unit = np.full(len(stacked), data.step_size(1.0, Space.W))
        return Directions(mean, stacked, unit, notes, np.array(bounds))

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if self.space == Space.W and Space.S not in generator.spaces:
            raise Unsupported(
                f"the generator has no style affines (its spaces are "
                f"{', '.join(space.name for space in generator.spaces)}); method.space=z factorises "
                "its first layer instead"
            )
        if self.space == Space.Z:
            first_layer(generator)  # raises Unsupported before time is spent on the search
        dim = generator.code_dim(self.space)
        if self.semantics > dim:
            raise EditbenchError(
                f"method.semantics={self.semantics} exceeds the number of eigenvectors of "
                f"{self.space.name}, one per channel, {dim}: lower it"
            )


def eigenvectors(weight: np.ndarray, count: int, normalise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of weight @ weight.T with the largest eigenvalues (eq. 5).

    Args:
        weight: (d, m), one column per output.
        count: number of vectors, at most d.
        normalise: scale the columns to unit length first.

    Returns:
        rows: (k, d) unit vectors; the largest entry of each is positive.
        values: (k,) their eigenvalues, in descending order.
    """
    # A channel with zero weights has no direction, and no length to divide by.
    columns = weight[:, np.linalg.norm(weight, axis=0) > 0]
    if normalise:
        columns = columns / np.linalg.norm(columns, axis=0, keepdims=True)
    # eigh returns eigenvalues in ascending order.
    values, vectors = np.linalg.eigh(columns @ columns.T)
    rows = vectors.T[::-1][:count]
    # The sign of an eigenvector is arbitrary; fixing it gives the same result on all machines.
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(1)]
    return rows * np.sign(largest)[:, None], values[::-1][:count]


@torch.no_grad()
def affine_weights(generator: Generator, like: Tensor) -> list[np.ndarray]:
    """Weights of the style affines that read each row of W+.

    ToRGB layers are left out except for the last one, as in the published code.

    Args:
        generator: with S.
        like: codes whose device and dtype are taken.

    Returns:
        For each row (w_dim, channels); the columns are the weights of the style channels.

    Raises:
        Unsupported: a style is not an affine function of w.
    """
    size = generator.w_dim
    last = len(generator.layer_names) - 1
    kept = []
    for place, name in enumerate(generator.layer_names):
        keep = not name.startswith("rgb") or place == last
        kept += [keep] * generator.style_sizes[place]
    columns = torch.tensor(kept, device=like.device)
    zero = like.new_zeros(1, generator.num_ws, size)
    base = generator.styles(zero)
    _check_affine(generator, zero, base)
    weights = []
    for row in range(generator.num_ws):
        # A style is an affine function of its row, so identity codes in that row give its weights.
        probe = like.new_zeros(size, generator.num_ws, size)
        probe[:, row] = torch.eye(size, device=like.device, dtype=like.dtype)
        weight = (generator.styles(probe) - base)[:, columns]
        # Layers that read other rows do not move at all.
        weights.append(weight[:, weight.abs().amax(0) > 0].double().cpu().numpy())
    return weights


def _check_affine(generator: Generator, zero: Tensor, base: Tensor) -> None:
    """Raise Unsupported unless doubling a code doubles the change of the styles."""
    probe = torch.ones_like(zero)
    once = generator.styles(probe) - base
    twice = generator.styles(2 * probe) - base
    if not torch.allclose(twice, 2 * once, rtol=1e-3, atol=1e-3 * float(once.abs().max())):
        raise Unsupported(
            "SeFa takes the weights of the style affines, and the styles of this generator are no "
            "affine function of w"
        )


@torch.no_grad()
def first_weight(generator: Generator, like: Tensor) -> np.ndarray:
    """Weight (z_dim, outputs) of the first linear layer that z passes through.

    Args:
        generator: decodes Z.
        like: codes whose device and dtype are taken.

    Raises:
        Unsupported: there is no such layer, or its output is not linear in z.
    """
    name = first_layer(generator)

    def respond(z: Tensor) -> Tensor:
        return generator.activation(Codes(Space.Z, z), name).flatten(1).double()

    identity = torch.eye(generator.z_dim, device=like.device, dtype=like.dtype)
    precision = generator.precision
    # A lower precision would round the weights, and with a bias the layer would not look linear.
    generator.precision = "fp32"
    try:
        # At z = 0 the output is the bias; each row of the identity gives one row of the weight.
        base = respond(like.new_zeros(1, generator.z_dim))
        weight = respond(identity) - base
        twice = respond(2 * identity) - base
    finally:
        generator.precision = precision
    if (twice - 2 * weight).norm() > TOLERANCE * twice.norm():
        raise Unsupported(f"the first layer '{name}' is not linear in z: z is changed before it")
    return weight.cpu().numpy()


def first_layer(generator: Generator) -> str:
    """Name of the first linear layer that z passes through.

    Args:
        generator: decodes Z.

    Raises:
        Unsupported: there is no such layer.
    """
    for name in generator.layers():
        if isinstance(generator.inner(name), LINEAR):
            return name
    # The paper uses the first layer of PGGAN and the affines of StyleGAN. The mapping network of a
    # StyleGAN first normalises z to unit length, so its first layer is not linear in z.
    if Space.S in generator.spaces:
        raise Unsupported(
            "of a generator with style affines SeFa factorises these, which read w, and nothing of "
            "the mapping from z, as in the paper: set method.space=w"
        )
    raise Unsupported("SeFa in Z factorises a linear layer, and the generator has none")
