"""Measures how a lower precision changes the judge's logits in the embedded world, and the speed.

The same latents are decoded and scored in every precision that the device supports. The reference
is fp32. The first row of the table is fp32 with another batch size: it shows the rounding error of
fp32 itself. The columns are:

    max change       largest change of a logit, in standard deviations of that logit over the images
    mean change      mean change, in the same unit
    changed labels   share of the labels that change, over all images and attributes
    images/s         images per second of wall time, the median over alternating rounds

With --runs, the script compares the results of two folders of records instead. For each method it
prints the number of starts that both folders contain, the share of these starts with the same
outcome (edited correctly or not), and the accuracy in both folders.

    python benchmarks/precision.py    # about 10 CPU seconds
    python benchmarks/precision.py --n 64 --rounds 1                  # the smallest run
    editbench demo
    editbench demo precision=bf16 --out runs/demo_bf16
    python benchmarks/precision.py --runs runs/demo runs/demo_bf16

docs/checkpoints.md reports both results. They guard editbench/base/precision.py.
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


def load_outcomes(folder: Path) -> pd.DataFrame:
    """Load whether each start of each finished run was edited correctly.

    Args:
        folder: of records.

    Returns:
        The columns method, attribute, seed, start, and right (1 if edited correctly, otherwise 0).
    """
    results = load(folder)
    # Other metrics have rows for the same starts.
    values = results.samples[results.samples["metric"] == "accuracy"]
    runs = results.runs[["run_id", "method", "attribute", "seed"]]
    found = runs.merge(values[["run_id", "start", "value"]], on="run_id")
    return found.drop(columns="run_id").rename(columns={"value": "right"})


def compare_runs(first: Path, second: Path) -> None:
    """Print how often two folders of records agree on the starts that both contain."""
    keys = ["method", "attribute", "seed", "start"]
    # The folders may have different starts, and only those in both compare.
    shared = load_outcomes(first).merge(load_outcomes(second), on=keys, suffixes=("_a", "_b"))
    shared["same"] = shared["right_a"] == shared["right_b"]
    print("accuracy in the last two columns")
    print(f"{'method':>26} {'starts':>7} {'same outcome':>13} {first.name:>14} {second.name:>14}")
    for name, part in [*shared.groupby("method"), ("all", shared)]:
        means = part[["same", "right_a", "right_b"]].mean()
        print(
            f"{name:>26} {len(part):7} {means['same']:13.1%} {means['right_a']:14.3f} "
            f"{means['right_b']:14.3f}"
        )


@torch.inference_mode()
def score(networks: Networks, z: Tensor, batch: int) -> Tensor:
    """Decode latents and let the judge score the images.

    Args:
        networks: generator and judge.
        z: (N, z_dim) latents.
        batch: images that are computed together.

    Returns:
        (N, width) logits.
    """
    parts = []
    for part in z.split(batch):
        image = networks.generator.decode(Codes(Space.Z, part))
        parts.append(networks.judge(image))
    if z.is_cuda:
        # The clock must not stop before the GPU has finished.
        torch.cuda.synchronize()
    return torch.cat(parts)


def load_in(precision: str, device: str) -> Networks:
    """Load the networks in a precision.

    Raises:
        EditbenchError: the device does not support this precision.
    """
    return load_networks(compose_settings([f"device={device}", f"precision={precision}"]))


def supported_precisions(device: str) -> list[str]:
    """List the precisions of a device, and print why it does not support the others."""
    supported = []
    for precision in PRECISIONS:
        try:
            load_in(precision, device)
        except EditbenchError as error:
            print(f"{precision} is left out: {error}")
        else:
            supported.append(precision)
    return supported


def compare_precisions(n: int, batch: int, device: str, rounds: int) -> None:
    """Print the change of the logits and the speed of every precision.

    Args:
        n: number of images.
        batch: images that are computed together.
        device: that computes.
        rounds: measurements of each precision, in turn.
    """
    precisions = supported_precisions(device)
    exact = load_in("fp32", device)
    z = torch.from_numpy(normals(0, "precision", 0, n, exact.generator.z_dim)).float().to(device)
    times: dict[str, list[float]] = {name: [] for name in precisions}
    logits: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name in precisions:
            # TF32 is a mode of the whole process, so the networks are loaded again every time.
            networks = load_in(name, device)
            began = time.perf_counter()
            logits[name] = score(networks, z, batch)
            times[name].append(time.perf_counter() - began)
    # This switches TF32 off again.
    load_networks(compose_settings([f"device={device}"]))
    reference = score(exact, z, batch)
    sigma = reference.std(0)
    attributes = exact.judge.attributes
    labels = attributes.labels(reference)
    # Another batch size may change the last bits of fp32.
    other_batch = max(batch // 3, 1)
    rows = {f"fp32, batch {other_batch}": score(exact, z, other_batch)} | logits
    print(f"{device}, {n} images, torch {torch.__version__}")
    print(
        f"{'precision':>16} {'max change, sigma':>18} {'mean change, sigma':>19} "
        f"{'changed labels':>15} {'images/s':>9}"
    )
    for name, value in rows.items():
        gap = (value - reference).abs() / sigma
        changed = (attributes.labels(value) != labels).float().mean().item()
        speed = ""
        # The row with the other batch size has no time.
        if name in times:
            speed = f"{n / statistics.median(times[name]):9.0f}"
        print(
            f"{name:>16} {gap.max().item():18.1e} {gap.mean().item():19.1e} {changed:15.3%} {speed}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1024, help="images (default: %(default)s)")
    parser.add_argument(
        "--batch",
        type=int,
        default=128,
        help="images that are computed together (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measurements of each precision (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="two folders of records to compare instead (default: none)",
    )
    args = parser.parse_args()
    if args.runs:
        compare_runs(*args.runs)
    else:
        compare_precisions(args.n, args.batch, args.device, args.rounds)


if __name__ == "__main__":
    main()
