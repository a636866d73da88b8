"""Memory of tensors that decoding a batch needs, without a GPU: on torch's meta device, which has shapes and no numbers.

StyleGAN2 config-f. The weights are not counted, nor the workspaces of convolutions, which no tensor shows.

    python benchmarks/peak_memory.py [--side 1024] [--batch 1 4 16 64]
"""

from __future__ import annotations

import argparse

import torch

from editbench.base.batches import peak_bytes
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 64])
    args = parser.parse_args()
    config = StyleGAN2Config.config_f(args.side)
    network = StyleGAN2(config).to("meta").eval().requires_grad_(False)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    print(
        f"StyleGAN2 config-f, {args.side} x {args.side}, float32: weights {weights / MIB:,.0f} MiB"
    )
    print(f"{'batch':>6} {'decode, MiB':>12} {'with derivative, MiB':>21}")
    for batch in args.batch:
        w = torch.empty(batch, config.w_dim, device="meta")

        def decode(w: torch.Tensor = w) -> torch.Tensor:
            rows = w[:, None].expand(-1, config.num_ws, -1)
            return network.synthesis(network.synthesis.styles(rows))

        def derive(w: torch.Tensor = w) -> torch.Tensor:
            leaf = w.clone().requires_grad_()
            return torch.autograd.grad(decode(leaf).sum(), leaf)[0]

        with torch.no_grad():
            plain = peak_bytes(decode)
        print(f"{batch:6} {plain / MIB:12,.0f} {peak_bytes(derive) / MIB:21,.0f}", flush=True)


if __name__ == "__main__":
    main()
