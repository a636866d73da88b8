"""The spectrum of the perceptual Hessian: block Lanczos, against the paper's power iteration.

Generator passes are compared.
Both work on the same fixed latents of the embedded world with the teacher's features. The paper's
way: one vector after the other, two gradients a product, each of which generates the unshifted
picture anew (6 passes a sample); ours: blocks of vectors, a tangent forward and one pass back
each, and a basis that forgets nothing. For every power iteration the block method is run to the
largest residual that it reached, and to a residual of 0.05. All residuals are measured with exact
products. A pass of ours covers the layers from the edited one on, a pass of the paper's the whole
generator; they are counted alike, so the ratio of passes leaves out what the cached prefix saves.

    python benchmarks/spectrum.py [--counts 16 64] [--latents 16] [--iterations 10 20] \\
        [--layer conv8]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from editbench.base.seeding import normals
from editbench.methods.navigan.spectrum import Spectrum, spectrum
from editbench.networks.perceptual import FeatureDistance
from editbench.worlds.faces import load_generator, load_scorer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--latents", type=int, default=16)
    parser.add_argument("--iterations", type=int, nargs="*", default=[10, 20])
    parser.add_argument("--layer", default="conv8")
    parser.add_argument("--block", type=int, default=8)
    args = parser.parse_args()
    # One thread, whose processor time other work on the machine does not lengthen.
    torch.set_num_threads(1)
    generator = load_generator()
    perceptual = FeatureDistance(load_scorer("teacher"))
    w = generator.map(
        torch.from_numpy(normals(0, "benchmark", 0, args.latents, generator.z_dim)).float()
    )

    def timed(count: int, **options: object) -> tuple[Spectrum, float]:
        began = time.process_time()
        found = spectrum(
            generator,
            w,
            args.layer,
            perceptual,
            count,
            **options,  # type: ignore[arg-type]
        )
        return found, time.process_time() - began

    def line(
        name: str, found: Spectrum, took: float, best: Tensor, paper: Spectrum | None = None
    ) -> None:
        ratio = "" if paper is None else f"{paper.passes / found.passes:8.1f}x"
        passes = found.passes / args.latents
        # The share of the trace that the vectors capture, of the reference's.
        captured = found.values.sum() / best.sum()
        print(
            f"{name:34s}{found.products:9d}{passes:13.0f}{found.residuals.median():12.4f}"
            f"{found.residuals.max():10.4f}{captured:10.4f}{took:9.1f}{ratio}",
            flush=True,
        )

    for count in args.counts:
        weights = generator.kernels()[args.layer].numel()
        print(
            f"\n{count} eigenvectors of {args.layer} ({weights} weights), "
            f"{args.latents} latents, {perceptual.about}"
        )
        print(
            f"{'':34s}{'products':>9s}{'passes / z':>13s}"
            f"{'residual: median':>12s}{'max':>6s}{'captured':>10s}{'CPU s':>9s}  passes saved"
        )
        reference, took = timed(count, tolerance=0.05, block=args.block)
        line("block Lanczos to 0.05", reference, took, reference.values)
        for iterations in args.iterations:
            for name, options in (
                ("paper, as published", {"products": "finite_difference", "unit": False}),
                ("paper, unit vectors", {"products": "finite_difference"}),
            ):
                paper, took = timed(
                    count, method="power", iterations=iterations, minibatch=16, **options
                )
                line(f"{name}, {iterations} iterations", paper, took, reference.values)
                # Just above: the block method may stop at an equal residual.
                tolerance = float(np.nextafter(paper.residuals.max().item(), np.inf))
                ours, took = timed(count, tolerance=tolerance, block=args.block)
                line("  block Lanczos to the same max", ours, took, reference.values, paper)
                if paper.residuals.max() > 0.05:
                    saved = paper.passes / reference.passes
                    print(f"{'  block Lanczos to 0.05':34s}{'':63s}{saved:8.1f}x", flush=True)


if __name__ == "__main__":
    main()
