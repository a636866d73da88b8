"""Computes the memory that StyleGAN2 config-f needs to decode a batch, without a GPU.

The networks run on torch's meta device, where tensors have shapes but no data, so nothing is
computed. The script adds up the tensors that exist at the same time. The columns are the batch
size, and the peak memory in MiB for decoding the batch, and for decoding it together with the
gradient in W. The weights are not included; the first line gives their size. The workspaces of
convolutions are not included either, because they are not tensors. A run takes some seconds.

    python benchmarks/peak_memory.py
    python benchmarks/peak_memory.py --side 256 --batch 8

The table of docs/gpu.md comes from this script. Use it to choose a batch size for a GPU.
"""

from __future__ import annotations

import argparse

import torch

from editbench.base.batches import peak_bytes
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config

MIB = 2**20  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--side",
        type=int,
        default=1024,
        help="width and height of an image, pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 4, 16, 64],
        help="batch sizes, images (default: 1 4 16 64)",
    )
    args = parser.parse_args()
    config = StyleGAN2Config.config_f(args.side)
    network = StyleGAN2(config).to("meta").eval().requires_grad_(False)
    synthesis = network.synthesis
    # Buffers such as the constant noise are included.
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    print(
        f"StyleGAN2 config-f, {args.side} x {args.side}, float32: weights {weights / MIB:,.0f} MiB"
    )
    print(f"{'batch':>6} {'decode, MiB':>12} {'with gradient, MiB':>19}")
    for batch in args.batch:
        w = torch.empty(batch, config.w_dim, device="meta")

        # The default argument binds the codes of this batch size.
        def decode(w: torch.Tensor = w) -> torch.Tensor:
            w_plus = w[:, None].expand(-1, config.num_ws, -1)
            return synthesis(synthesis.styles(w_plus))

        def differentiate(w: torch.Tensor = w) -> torch.Tensor:
            # Only the gradient with respect to w is computed, as in an optimisation in W.
            leaf = w.clone().requires_grad_()
            return torch.autograd.grad(decode(leaf).sum(), leaf)[0]

        with torch.no_grad():
            plain = peak_bytes(decode)
        with_gradient = peak_bytes(differentiate)
        print(f"{batch:6} {plain / MIB:12,.0f} {with_gradient / MIB:19,.0f}", flush=True)


if __name__ == "__main__":
    main()
