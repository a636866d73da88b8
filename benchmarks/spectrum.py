"""Measures the generator passes that NaviGAN's spectrum needs, against the paper's power iteration.

Both compute the leading eigenvectors of the perceptual Hessian of a layer's weight. They use the
same latents of the embedded world and the teacher's features, in one thread.

    paper           one vector after the other. A product with the Hessian is a finite difference of
                    two gradients, and each gradient generates the unshifted image again: 6 passes
                    per latent. "As published" does not scale the vectors to unit length.
    block Lanczos   (ours) blocks of vectors. A product is a forward pass of tangents and a backward
                    pass, and all earlier vectors are kept.

The power iteration stops after a number of iterations, whatever its error. So for each of its runs,
block Lanczos runs until its largest residual is as small, and once until it is 0.05. All residuals,
|H v - value v| / value, are measured with exact products. The columns are:

    products            vectors that the Hessian was multiplied with
    passes per latent   generator passes divided by the number of latents. A pass of ours starts at
                        the edited layer and a pass of the paper's at the first layer, but both
                        count as one pass. The real saving is therefore larger.
    residual            median and maximum over the eigenvectors
    captured            sum of the eigenvalues, divided by that of block Lanczos to 0.05
    CPU s               CPU seconds
    passes saved        passes of the paper's run above, divided by those of the row

    python benchmarks/spectrum.py
    python benchmarks/spectrum.py --counts 2 --latents 2 --iterations 1 --layer conv4    # short

docs/methods.md reports the result. It guards methods/navigan/spectrum.py.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from editbench.base.seeding import normals
from editbench.methods.navigan.spectrum import Spectrum, SpectrumOptions, spectrum
from editbench.networks.generator import Generator
from editbench.networks.perceptual import FeatureDistance
from editbench.worlds.faces import load_generator, load_scorer

TOLERANCE = 0.05  # largest residual that the methods of the benchmark accept
MINIBATCH = 16  # latents that the power iteration differentiates together
# The two forms of the paper's power iteration, as options of `spectrum`.
PAPER: dict[str, dict[str, Any]] = {
    "paper, as published": {"products": "finite_difference", "unit": False},
    "paper, unit vectors": {"products": "finite_difference"},
}


class Timed(NamedTuple):
    """A spectrum, and the CPU seconds that it took."""

    spectrum: Spectrum
    seconds: float


class Problem(NamedTuple):
    """The Hessian whose spectrum is computed.

    Attributes:
        generator: of the embedded world.
        w: (n, w_dim) latents.
        layer: whose weight is shifted.
        perceptual: distance between images.
    """

    generator: Generator
    w: Tensor
    layer: str
    perceptual: FeatureDistance

    def solve(self, count: int, **options: Any) -> Timed:
        """Compute the leading eigenvectors.

        Args:
            count: number of eigenvectors.
            **options: of editbench.methods.navigan.spectrum.SpectrumOptions.
        """
        began = time.process_time()
        found = spectrum(
            self.generator, self.w, self.layer, self.perceptual, count, SpectrumOptions(**options)
        )
        return Timed(found, time.process_time() - began)


def print_header() -> None:
    """Print the names of the columns."""
    print(
        f"{'method':34}{'products':>9}{'passes per latent':>19}{'residual: median':>18}{'max':>9}"
        f"{'captured':>10}{'CPU s':>9}{'passes saved':>14}"
    )


def print_row(
    name: str, timed: Timed, latents: int, reference: Spectrum, paper: Spectrum | None = None
) -> None:
    """Print the row of a spectrum.

    Args:
        name: of the method.
        timed: the spectrum and its time.
        latents: number of latents.
        reference: whose eigenvalues count as complete.
        paper: whose passes the spectrum is compared with; None leaves the column empty.
    """
    found = timed.spectrum
    saved = ""
    if paper is not None:
        saved = f"{f'{paper.passes / found.passes:.1f}x':>14}"
    # `passes` adds up the passes of all latents.
    passes = found.passes / latents
    captured = found.values.sum() / reference.values.sum()
    print(
        f"{name:34}{found.products:9}{passes:19.0f}{found.residuals.median():18.4f}"
        f"{found.residuals.max():9.4f}{captured:10.4f}{timed.seconds:9.1f}{saved}",
        flush=True,
    )


def compare(problem: Problem, count: int, iterations: list[int], block: int) -> None:
    """Compare the methods at a number of eigenvectors, and print the table.

    Args:
        problem: whose spectrum is computed.
        count: number of eigenvectors.
        iterations: numbers of iterations of the power method.
        block: vectors that block Lanczos multiplies together.
    """
    latents = len(problem.w)
    weights = problem.generator.kernels()[problem.layer].numel()
    print(
        f"\n{count} eigenvectors of {problem.layer} ({weights} weights), {latents} latents, "
        f"{problem.perceptual.about}"
    )
    print_header()
    best = problem.solve(count, tolerance=TOLERANCE, block=block)
    reference = best.spectrum
    print_row(f"block Lanczos to {TOLERANCE}", best, latents, reference)
    # The power iteration has no tolerance. Its number of iterations decides how exact it is.
    for number in iterations:
        for name, options in PAPER.items():
            power = problem.solve(
                count, method="power", iterations=number, minibatch=MINIBATCH, **options
            )
            paper = power.spectrum
            print_row(f"{name}, {number} iterations", power, latents, reference)
            # The next larger number, so that block Lanczos may also stop at an equal residual.
            tolerance = float(np.nextafter(paper.residuals.max().item(), np.inf))
            same_error = problem.solve(count, tolerance=tolerance, block=block)
            print_row("  block Lanczos to the same max", same_error, latents, reference, paper)
            if paper.residuals.max() > TOLERANCE:
                # The paper's run is worse than the reference, which needs this many passes less.
                saved = f"{paper.passes / reference.passes:.1f}x"
                print(f"{f'  block Lanczos to {TOLERANCE}':34}{saved:>88}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[16, 64],
        help="numbers of eigenvectors (default: 16 64)",
    )
    parser.add_argument(
        "--latents", type=int, default=16, help="samples of z (default: %(default)s)"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        nargs="*",
        default=[10, 20],
        help="numbers of iterations of the power method, for each vector; the paper has 10 and its "
        "code 20 (default: 10 20)",
    )
    parser.add_argument(
        "--layer",
        default="conv8",
        help="layer of the generator whose weight is shifted (default: %(default)s)",
    )
    parser.add_argument(
        "--block",
        type=int,
        default=8,
        help="vectors that block Lanczos multiplies together (default: %(default)s)",
    )
    args = parser.parse_args()
    # One thread, so that other work on the machine does not change the CPU time.
    torch.set_num_threads(1)
    generator = load_generator()
    perceptual = FeatureDistance(load_scorer("teacher"))
    z = torch.from_numpy(normals(0, "benchmark", 0, args.latents, generator.z_dim)).float()
    problem = Problem(generator, generator.map(z), args.layer, perceptual)
    for count in args.counts:
        compare(problem, count, args.iterations, args.block)


if __name__ == "__main__":
    main()
