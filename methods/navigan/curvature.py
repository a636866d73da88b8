"""Hessian-vector products in the weight of one layer.

The Hessian is that of the mean perceptual distance to the unshifted images (Cherepkov, Voynov &
Babenko, CVPR 2021, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from editbench.base.errors import NonFinite, UnknownName
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.base.validation import check_choice
from editbench.networks.generator import Generator
from editbench.networks.perceptual import Perceptual
from editbench.networks.style_generator import StyleGenerator
from editbench.networks.stylegan import State

PRODUCTS = ("gauss_newton", "hessian", "finite_difference")
CACHE = 4 << 30  # bytes; limit for caching the features before the layer, of all latents together
Residuals = Callable[[Tensor], Tensor]  # shift of the weight -> residuals (n, M) of a minibatch


class Curvature:
    """H = d^2/d xi^2 E_z |r(G_theta+xi(z)) - r(G_theta(z))|^2 at xi = 0, as an operator.

    It takes rows (b, D) of directions; r are the perceptual residuals.
    For a StyleGenerator, the features before the layer are computed once and cached if those of all
    latents fit into `CACHE` bytes.

    A generator pass is one pass of one sample through the generator from the layer on: forward,
    backward, or forward with one tangent. Rows that are multiplied together share the passes that
    do not depend on a direction. `passes` and `products` (number of multiplied rows) count from 0,
    and the passes are added to `generator.decoded`.

    Args:
        generator: whose layer is shifted.
        latents: the fixed sample of z, as codes; a plain tensor holds w, or z if there is no W.
        layer: name of the layer.
        perceptual: computes r.
        products: 'gauss_newton', 2 E J^T J v by a forward tangent and a backward pass, exact
            because the residual vanishes at xi = 0; 'hessian', forward over reverse;
            'finite_difference', the paper's (g(r v) - g(-r v)) / (2 r), which computes the
            unshifted image again for each gradient g.
        minibatch: samples at a time; does not change the result.
        radius: of finite differences.
        unit: whether v is scaled to unit length before it is multiplied by the radius.

    Raises:
        UnknownName: the generator has no such layer.
    """

    def __init__(
        self,
        generator: Generator,
        latents: Codes | Tensor,
        layer: str,
        perceptual: Perceptual,
        products: str = "gauss_newton",
        minibatch: int = 8,
        radius: float = 0.1,
        unit: bool = True,
    ) -> None:
        self.generator = generator
        self.layer = layer
        self.perceptual = perceptual
        self.radius = radius
        self.unit = unit
        known = generator.kernels()
        if layer not in known:
            raise UnknownName("layer", layer, known)
        self.weight = known[layer].detach()
        self.size = self.weight.numel()
        self.passes = 0
        self.products = 0
        check_choice("products", products, PRODUCTS)
        self._multiply = {
            "gauss_newton": self._gauss_newton,
            "hessian": self._hessian,
            "finite_difference": self._finite_difference,
        }[products]
        if isinstance(latents, Tensor):
            latents = Codes(generator.latent_space, latents)
        self.samples = len(latents)
        self._minibatches: list[tuple[int, Residuals]] = []  # n, and the residuals of n samples
        with torch.no_grad():
            for first in range(0, self.samples, minibatch):
                codes = latents[first : first + minibatch]
                self._minibatches.append((len(codes), self._residuals_of(codes)))

    def __call__(self, rows: Tensor) -> Tensor:
        """H v for every row: (b, D) -> (b, D)."""
        directions = rows.reshape(-1, *self.weight.shape)
        decoded = self.generator.decoded
        spent = self.passes
        # In float64, so that the size of the minibatches does not matter.
        total = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
        with torch.no_grad():
            for n, residuals in self._minibatches:
                product, passes = self._multiply(residuals, directions)
                total += product.flatten(1)
                self.passes += n * passes
        if not bool(torch.isfinite(total).all()):
            raise NonFinite(
                f"the spectrum of '{self.layer}': NaN or infinity in a derivative of the pictures"
            )
        # The generator counts only decodes, so its counter is set to the passes including
        # derivatives.
        self.products += len(rows)
        self.generator.decoded = decoded + self.passes - spent
        return (total / self.samples).to(rows.dtype)

    # -- products of one minibatch, summed over it, and passes a sample -------
    def _gauss_newton(self, residuals: Residuals, v: Tensor) -> tuple[Tensor, int]:
        # The residual vanishes at xi = 0, and with it the second term of the Hessian, which leaves
        # 2 J^T J.
        zero = torch.zeros_like(self.weight)
        tangents = vmap(lambda direction: jvp(residuals, (zero,), (direction,))[1])(v)  # (b, n, M)
        pull = vjp(residuals, zero)[1]
        return 2 * vmap(pull)(tangents)[0], 2 + 2 * len(v)

    def _hessian(self, residuals: Residuals, v: Tensor) -> tuple[Tensor, int]:
        # Forward over reverse: a tangent of the gradient, exact for any residual.
        zero = torch.zeros_like(self.weight)
        slope = grad(partial(self._distance, residuals, residuals(zero)))
        return vmap(lambda direction: jvp(slope, (zero,), (direction,))[1])(v), 3 + 2 * len(v)

    def _finite_difference(self, residuals: Residuals, v: Tensor) -> tuple[Tensor, int]:
        # Eq. (4), (g(r v) - g(-r v)) / (2 r); the published code does not normalise v.
        lengths = v.new_ones(())
        if self.unit:
            lengths = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
        still = residuals(torch.zeros_like(self.weight))
        slope = vmap(grad(partial(self._distance, residuals, still)))
        step = self.radius * v / lengths
        return lengths * (slope(step) - slope(-step)) / (2 * self.radius), 6 * len(v)

    @staticmethod
    def _distance(residuals: Residuals, still: Tensor, xi: Tensor) -> Tensor:
        return (residuals(xi) - still).square().sum()

    # -- the generator from the layer on --------------------------------------
    def _residuals_of(self, codes: Codes) -> Residuals:
        """Residuals of a minibatch as a function of the shift."""
        # One shift for all samples, not normalised.
        index = torch.zeros(len(codes), dtype=torch.long, device=codes.values.device)
        ones = torch.ones(len(codes), dtype=self.weight.dtype, device=self.weight.device)
        generator = self.generator
        if not isinstance(generator, StyleGenerator):

            def of_whole_network(xi: Tensor) -> Tensor:
                shift = WeightShift(self.layer, xi[None], index, ones)
                image = generator.decode(Codes(codes.space, codes.values, shift))
                return self.perceptual.residual(image)

            return of_whole_network
        synthesis = generator.network.synthesis
        styles = _split_styles(generator, codes)
        first = generator.layer_names.index(self.layer)

        def run_early_layers() -> State:
            return synthesis.run(synthesis.begin(len(codes)), styles, last=first)

        features = run_early_layers()
        sample_bytes = sum(part.nbytes for part in features if part is not None) / len(codes)
        # The features of all minibatches must fit; otherwise each product runs the early layers
        # again.
        cached = sample_bytes * self.samples <= CACHE
        early = (lambda: features) if cached else run_early_layers

        def from_layer_on(xi: Tensor) -> Tensor:
            shift = WeightShift(self.layer, xi[None], index, ones)
            _, image = synthesis.run(early(), styles, shift=shift, first=first)
            assert image is not None
            return self.perceptual.residual(image)

        return from_layer_on


def _split_styles(generator: StyleGenerator, codes: Codes) -> Sequence[Tensor]:
    """The style of each layer, from codes of Z, W, W+ or S."""
    values = codes.values
    if codes.space == Space.Z:
        values = generator.map(values)
    if codes.space in (Space.Z, Space.W):
        values = generator.w_plus(values)
    if codes.space != Space.S:
        values = generator.styles(values)
    return generator.split_styles(values)
