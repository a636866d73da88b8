"""What a lower precision does to the logits of the embedded world, in standard deviations of each logit, and to speed.

The same z are decoded and scored by the judge in every mode that the device has; fp32 is the reference, and its own
row says what another batch size changes. Seconds are medians over alternating rounds.

    python benchmarks/precision.py [--n 1024] [--device cpu] [--rounds 3]

With --runs, what it does to a comparison: the outcomes of two folders of records on the starts that both have.

    editbench demo && editbench demo precision=bf16 --out runs/demo_bf16
    python benchmarks/precision.py --runs runs/demo runs/demo_bf16
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from editbench.base.compute_options import PRECISIONS
from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.roles import Networks
from editbench.report.load import load
from editbench.run.compose import compose_settings
from editbench.run.loading import load_networks


def outcomes(folder: Path) -> pd.DataFrame:
    """Whether each start of each finished run was edited rightly: method, attribute, seed, start, right."""
    results = load(folder)
    values = results.samples[results.samples["metric"] == "accuracy"]
    runs = results.runs[["run_id", "method", "attribute", "seed"]]
    found = runs.merge(values[["run_id", "start", "value"]], on="run_id")
    return found.drop(columns="run_id").rename(columns={"value": "right"})


def compare_runs(first: Path, second: Path) -> None:
    """Print a line a method: starts that both folders have, outcomes that agree, both accuracies."""
    keys = ["method", "attribute", "seed", "start"]
    shared = outcomes(first).merge(outcomes(second), on=keys, suffixes=("_a", "_b"))
    shared["same"] = shared["right_a"] == shared["right_b"]
    parts = [*shared.groupby("method"), ("all", shared)]
    print(f"{'':>26} {'starts':>7} {'same outcome':>13} {first.name:>14} {second.name:>14}")
    for name, part in parts:
        means = part[["same", "right_a", "right_b"]].mean()
        print(
            f"{name:>26} {len(part):7} {means['same']:13.1%} {means['right_a']:14.3f} "
            f"{means['right_b']:14.3f}"
        )


@torch.inference_mode()
def logits(networks: Networks, z: Tensor, batch: int) -> Tensor:
    """z (N, z_dim) -> the judge's logits (N, width)."""
    parts = [
        networks.judge(networks.generator.decode(Codes(Space.Z, part))) for part in z.split(batch)
    ]
    if z.is_cuda:
        torch.cuda.synchronize()
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, nargs=2, metavar=("A", "B"))
    args = parser.parse_args()
    if args.runs:
        compare_runs(*args.runs)
        return
    networks_of: dict[str, Networks] = {}
    for precision in PRECISIONS:
        try:
            networks_of[precision] = load_networks(
                compose_settings([f"device={args.device}", f"precision={precision}"])
            )
        except EditbenchError as error:
            print(f"{precision}: not here ({error})")
    exact = networks_of["fp32"]
    z = (
        torch.from_numpy(normals(0, "precision", 0, args.n, exact.generator.z_dim))
        .float()
        .to(args.device)
    )
    times: dict[str, list[float]] = {name: [] for name in networks_of}
    found: dict[str, Tensor] = {}
    for _ in range(args.rounds):
        for name in networks_of:
            networks = load_networks(
                compose_settings([f"device={args.device}", f"precision={name}"])
            )  # sets TF32 anew
            began = time.perf_counter()
            found[name] = logits(networks, z, args.batch)
            times[name].append(time.perf_counter() - began)
    load_networks(compose_settings([f"device={args.device}"]))
    reference = logits(exact, z, args.batch)
    sigma, attributes = reference.std(0), exact.judge.attributes
    rows = {
        f"fp32, batch {max(args.batch // 3, 1)}": logits(exact, z, max(args.batch // 3, 1)),
        **found,
    }
    labels = attributes.labels(reference)
    print(f"{args.device}, {args.n} pictures, torch {torch.__version__}")
    print(
        f"{'':>16} {'max |d logit|/sigma':>20} {'mean':>9} {'labels that change':>20} {'pictures/s':>11}"
    )
    for name, value in rows.items():
        gap = (value - reference).abs() / sigma
        changed = (attributes.labels(value) != labels).float().mean().item()
        speed = f"{args.n / statistics.median(times[name]):11.0f}" if name in times else ""
        print(
            f"{name:>16} {gap.max().item():20.1e} {gap.mean().item():9.1e} {changed:20.3%} {speed}"
        )


if __name__ == "__main__":
    main()
