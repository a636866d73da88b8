"""Top eigenvectors of a perceptual Hessian: the weight directions that change images most.

H = d^2/d xi^2 E_z d(G_theta(z), G_theta+xi(z)) at xi = 0 (Cherepkov, Voynov & Babenko,
"Navigating the GAN Parameter Space for Semantic Image Editing", CVPR 2021, section 3.3, with the
output of LPIPS as their d^2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from editbench.base import seeding
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import progress, status
from editbench.base.spaces import Codes
from editbench.base.validation import check_at_least, check_choice, check_fields, check_positive
from editbench.methods.navigan.curvature import PRODUCTS, Curvature
from editbench.networks.generator import Generator
from editbench.networks.perceptual import (
    LPIPS,
    FeatureDistance,
    Perceptual,
    PixelDistance,
    lpips_files,
)
from editbench.networks.scorer import Scorer

METHODS = ("block", "power")
SPURIOUS = 1e-6  # relative to the size of a product; smaller values are rounding errors


@dataclass(frozen=True)
class SpectrumOptions:
    """Options of the spectrum in NaviGAN's variants 'spectrum' and 'hybrid'.

    Args:
        perceptual: 'pixels'; 'lpips', the paper's distance, which needs VGG16's weights; or
            'teacher', the same on the teacher's features. The first two use no labels. With the
            last the directions are found with supervision, and the fit's notes say so.
        vgg: file of LPIPS's VGG16; '' uses torchvision's download location.
        linear: file of LPIPS's linear weights; '' uses those that come with torchmetrics.
        size: number of eigenvectors that the hybrid variant combines (the spectrum variant uses
            `count` instead).
        latents: number of fixed samples of z.
        method: 'block', block Lanczos with full reorthogonalisation, which stops when every
            residual is within `tolerance`; 'power', the paper's power iteration, one vector after
            the other, always `iterations` long (paper 10, published code 20).
        products: 'gauss_newton' (exact here), 'hessian' (exact in general) or 'finite_difference'
            (the paper's); see Curvature.
        iterations: per vector ('power'), or the largest number of blocks ('block').
        tolerance: of the residuals.
        block: number of vectors that 'block' multiplies at a time; an eigenvalue can be found with
            at most this multiplicity.
        minibatch: samples at a time; does not change the result.
        radius: displacement of finite differences (paper 0.1).
        unit: scale v to unit length before it is multiplied by the radius; the published code does
            not and displaces by radius * |v|.
    """

    perceptual: str = "pixels"
    vgg: str = ""
    linear: str = ""
    size: int = 64
    latents: int = 512
    method: str = "block"
    products: str = "gauss_newton"
    iterations: int = 60
    tolerance: float = 0.05
    block: int = 8
    minibatch: int = 8
    radius: float = 0.1
    unit: bool = True

    def __post_init__(self) -> None:
        check_fields("spectrum", self)
        check_choice("spectrum.perceptual", self.perceptual, ("lpips", "teacher", "pixels"))
        check_choice("spectrum.method", self.method, METHODS)
        check_choice("spectrum.products", self.products, PRODUCTS)
        for name in ("vgg", "linear"):
            if getattr(self, name) and self.perceptual != "lpips":
                raise EditbenchError(
                    f"spectrum.{name} is only used with perceptual: lpips, but perceptual is "
                    f"{self.perceptual}"
                )
        for name in ("size", "latents", "iterations", "block", "minibatch"):
            check_at_least(f"spectrum.{name}", getattr(self, name), 1)
        check_positive("spectrum.radius", self.radius)
        check_positive("spectrum.tolerance", self.tolerance)
        # A file that is missing is named before a bank is built.
        if self.perceptual == "lpips":
            lpips_files(self.vgg, self.linear)

    def distance(self, teacher: Scorer) -> Perceptual:
        """Build the chosen perceptual distance."""
        if self.perceptual == "lpips":
            return LPIPS(lpips_files(self.vgg, self.linear))
        return PixelDistance() if self.perceptual == "pixels" else FeatureDistance(teacher)


@dataclass
class Spectrum:
    """Leading eigenpairs, the largest first.

    Args:
        vectors: (count, *weight.shape) orthonormal, float32.
        values: (count,) float64.
        residuals: (count,) |H v - value v| / value.
        passes: number of generator passes; see Curvature.
        products: number of vectors that H was multiplied with.
        converged: whether every residual is within the tolerance.
    """

    vectors: Tensor
    values: Tensor
    residuals: Tensor
    passes: int
    products: int
    converged: bool


def check_count(count: int, size: int, layer: str, options: SpectrumOptions) -> None:
    """Check that there are enough eigenvectors, and that the blocks can hold them.

    Args:
        count: number of wanted eigenvectors.
        size: number of elements of the layer's weight.
        layer: its name.
        options: how they are computed.

    Raises:
        EditbenchError: `count` is too large.
    """
    if not 1 <= count <= size:
        raise EditbenchError(
            f"method.count={count} must be from 1 to {size}, since the weight of '{layer}' has "
            f"{size} numbers"
        )
    # A layer may have fewer weights than a block has rows.
    block = min(options.block, size)
    if options.method == "block" and options.iterations * block < count:
        raise EditbenchError(
            f"spectrum.iterations={options.iterations} blocks of {block} cannot hold {count} "
            f"eigenvectors: set it to {-(-count // block)} or more"
        )


def spectrum(
    generator: Generator,
    latents: Codes | Tensor,
    layer: str,
    perceptual: Perceptual,
    count: int,
    options: SpectrumOptions,
    seed: int = 0,
) -> Spectrum:
    """Top `count` eigenpairs of the Hessian in the weight of one layer.

    The method 'block' keeps all vectors that it has multiplied: about 2.5 to 4 times `count`, each
    as large as the weight.

    Args:
        generator: whose layer is shifted.
        latents: the fixed samples, as codes; a plain tensor holds w, or z if the generator has no
            W.
        layer: name of the layer.
        perceptual: d^2 of the Hessian.
        count: number of wanted eigenpairs.
        options: how they are computed; perceptual, size and latents of them are not used.
        seed: of the first vectors.

    Raises:
        UnknownName: the generator has no such layer.
        EditbenchError: the layer has fewer weights than `count`.
        Unsupported: a shift of the layer changes no picture.
    """
    minibatch = options.minibatch
    curvature = Curvature(
        generator,
        latents,
        layer,
        perceptual,
        options.products,
        minibatch,
        options.radius,
        options.unit,
    )
    check_count(count, curvature.size, layer, options)
    # A layer may have fewer weights than a block has rows.
    block = min(options.block, curvature.size)
    noise = seeding.rng(seed, "spectrum", layer)

    def draw(rows: int) -> Tensor:
        return torch.from_numpy(noise.standard_normal((rows, curvature.size))).to(curvature.weight)

    if options.method == "block":
        vectors, values, residuals = _block_lanczos(
            curvature, draw, count, block, options.tolerance, options.iterations
        )
        passes = curvature.passes
        used = curvature.products
    else:
        vectors = _power_iteration(curvature, draw, count, options.iterations)
        passes = curvature.passes
        used = curvature.products
        # The residuals of the power iteration are measured with the exact Hessian, not with finite
        # differences; these passes are not counted.
        exact = Curvature(generator, latents, layer, perceptual, minibatch=minibatch)
        vectors, values, residuals = _measure(exact, vectors, block)
    _check_seen(values[0], layer)
    units = F.normalize(vectors, dim=-1)
    vectors = units.reshape(count, *curvature.weight.shape).float().contiguous()
    converged = bool((residuals <= options.tolerance).all())
    return Spectrum(vectors, values, residuals, passes, used, converged)


def _check_seen(size: Tensor, layer: str) -> None:
    """Raise Unsupported if H is zero.

    Args:
        size: () its largest eigenvalue, or the largest entry of a product with it.
        layer: for the message.
    """
    if not (bool(torch.isfinite(size)) and size > 0):
        raise Unsupported(
            f"the weight of '{layer}' has no spectrum: a shift of it changes no picture, as far as "
            f"the perceptual distance sees (largest curvature {size.item():g}); choose another "
            "layer"
        )


# -- block Lanczos ------------------------------------------------------------
def _block_lanczos(
    curvature: Curvature,
    draw: Callable[[int], Tensor],
    count: int,
    block: int,
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rayleigh-Ritz in the span of all blocks so far (Golub & Underwood 1977): vectors, values,
    residuals.

    H maps the basis to itself and the newest block also out of it; a Ritz pair's residual is the
    length of that part.
    """
    basis = draw(0)
    fresh = _orthonormal(draw(block), basis, draw, block)
    projected = torch.zeros(0, 0, dtype=torch.float64)  # H in the basis
    with status(f"spectrum of {curvature.layer}"):
        for step in range(1, iterations + 1):
            image = curvature(fresh)
            if step == 1:
                _check_seen(image.abs().max(), curvature.layer)
            known = len(basis)
            basis = torch.cat([basis, fresh])
            # Full reorthogonalisation against all blocks; in exact arithmetic two would suffice.
            column = basis @ image.T
            image = image - column.T @ basis
            inner = column.double().cpu()
            # The new block's row and column; the matrix is symmetric up to rounding.
            projected = torch.cat([torch.cat([projected, inner[:known]], 1), inner.T], 0)
            # eigh returns ascending eigenvalues; flipped, the largest come first.
            rising, columns = torch.linalg.eigh((projected + projected.T) / 2)
            values = rising.flip(-1)[..., :count]
            ritz = columns.flip(-1)[..., :count]
            gaps = torch.linalg.vector_norm(image.T.double().cpu() @ ritz[known:], dim=0)
            residuals = gaps / values.clamp_min(SPURIOUS * values[0])
            left = min(block, curvature.size - len(basis))
            enough = len(basis) >= count and bool((residuals <= tolerance).all())
            if not left or step == iterations or enough:
                break
            fresh = _orthonormal(image, basis, draw, left)
    return ritz.T.to(basis) @ basis, values, residuals


def _orthonormal(rows: Tensor, basis: Tensor, draw: Callable[[int], Tensor], count: int) -> Tensor:
    """`count` orthonormal rows in the span of `rows` and orthogonal to the basis.

    If the span is too small, it is completed with random rows.

    Args:
        rows: (b, D).
        basis: (m, D) orthonormal.
        draw: n -> (n, D) random rows.
        count: rows that are wanted.
    """
    scale = rows.norm()
    for _ in range(2):  # twice is enough (Kahan & Parlett)
        rows = rows - (rows @ basis.T) @ basis
    _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    kept = right[:count][sizes[:count] > SPURIOUS * scale]
    if len(kept) < count:
        more = _orthonormal(
            draw(count - len(kept)), torch.cat([basis, kept]), draw, count - len(kept)
        )
        kept = torch.cat([kept, more])
    return kept


# -- the paper's power iteration ----------------------------------------------
def _power_iteration(
    curvature: Curvature, draw: Callable[[int], Tensor], count: int, iterations: int
) -> Tensor:
    """Repeat v <- P H v / |v|, eq. (4), with P the projection off the vectors found so far.

    Returns:
        (count, D) orthonormal rows.
    """
    found = draw(0)
    with progress(f"spectrum of {curvature.layer}: vectors", count) as advance:
        for _ in range(count):
            v = _off(draw(1), found)
            for _ in range(iterations):
                if curvature.unit:
                    v = F.normalize(v, dim=-1)
                image = curvature(v)
                if not len(found):
                    _check_seen(image.abs().max(), curvature.layer)
                v = _off(image / v.norm(), found)
            # Projected once more at unit length, to remove rounding errors.
            across = _off(F.normalize(v, dim=-1), found)
            found = torch.cat([found, F.normalize(across, dim=-1)])
            advance()
    return found


def _off(v: Tensor, found: Tensor) -> Tensor:
    return v - (v @ found.T) @ found


def _measure(curvature: Curvature, vectors: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, Rayleigh quotients and residuals, largest first."""
    images = torch.cat([curvature(part) for part in vectors.split(block)])
    values = (vectors * images).sum(1).double()
    gaps = (images - values[:, None].to(images) * vectors).norm(dim=1).double()
    order = values.argsort(descending=True)
    residuals = gaps / values.clamp_min(SPURIOUS * values.max())
    return vectors[order], values[order].cpu(), residuals[order].cpu()
