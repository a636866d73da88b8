"""The walk of a job against a plain batched script that decodes and scores the same codes.

The script keeps start, step and logits in lists and makes one table at the end. The engine also
checks the starts and the codes, writes down distances, classes and crossings, and keeps pictures.
Both decode the same samples and find the same crossings. The ratio is of CPU seconds, the median of
pairs that follow each other in one process. The bank is built first, or found in --cache.

    python benchmarks/walk.py [--starts 300] [--pairs 5] [--cache runs/cache]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from editbench.bank.starts import draw_targets
from editbench.base.attributes import Attributes
from editbench.base.spaces import Codes, Space
from editbench.methods.random_direction import RandomDirection
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank, load_networks
from editbench.run.stages import start_codes
from editbench.walk.engine import walk_starts
from editbench.walk.spec import EngineSpec

ATTRIBUTE = "smile"
LENGTH = 0.2  # of a step in W: some starts cross early, some never


@torch.no_grad()
def script(
    generator: Generator,
    judge: Scorer,
    codes: Tensor,
    moves: Tensor,
    target: Tensor,
    spec: EngineSpec,
) -> pd.DataFrame:
    """Rows (sample, step, crossed, logits) of a walk along one straight line a sample.

    Args:
        generator: decodes W.
        judge: scores the pictures.
        codes: (n, d) the starts.
        moves: (n, d) what a step adds.
        target: (n,) class of each start.
        spec: of the walk that it is compared with.
    """
    going = torch.arange(len(codes))
    codes = codes.clone()
    steps = []
    for step in range(1, spec.max_steps + 1):
        codes[going] += moves[going]
        parts = [
            judge(generator.decode(Codes(Space.W, codes[part]))) for part in going.split(spec.batch)
        ]
        logits = torch.cat(parts)
        there = judge.attributes.labels(logits, ATTRIBUTE) == target[going]
        rows = pd.DataFrame(logits.numpy(), columns=judge.attributes.columns())
        steps.append(rows.assign(sample=going.numpy(), step=step, there=there.numpy()))
        going = going[~there]
        if not len(going):
            break
    return pd.concat(steps, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cache", default="runs/cache")
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = ["method=random", f"attribute={ATTRIBUTE}", f"cache={args.cache}"]
    settings = compose_settings([*words, "budget=demo", f"starts.n={args.starts}"])
    networks = load_networks(settings)
    names = [ATTRIBUTE]
    networks = networks.select(names)
    bank = load_bank(settings).select(names)
    starts = draw_targets(settings.starts, bank)[ATTRIBUTE]
    editor = RandomDirection(delta=LENGTH, scale_step=False)
    codes, logits = start_codes(editor, networks.generator, bank, starts, "cpu")
    target = torch.from_numpy(starts.target)
    spec = EngineSpec(max_steps=settings.engine.max_steps, batch=64)

    ratios = []
    for _ in range(args.pairs):
        began = time.process_time()
        moves = LENGTH * editor.directions(torch.from_numpy(starts.index), codes)
        plain = script(networks.generator, networks.judge, codes, moves, target, spec)
        between = time.process_time()
        walked = walk_starts(
            editor,
            networks.generator,
            networks.judge,
            ATTRIBUTE,
            starts,
            codes,
            logits,
            bank.sigma["judge"],
            spec,
        )
        ended = time.process_time()
        check_same(plain, walked.table, starts.index, networks.judge.attributes)
        ratios.append((between - began) / (ended - between))
        print(f"script {between - began:.2f}, engine {ended - between:.2f} CPU s", flush=True)
    print(
        f"{len(starts)} starts, {len(plain)} decoded: the walk runs at "
        f"{statistics.median(ratios):.3f} of the script's rate"
    )


def check_same(
    plain: pd.DataFrame, walked: pd.DataFrame, index: np.ndarray, attributes: Attributes
) -> None:
    """Both walks took the same steps and saw the same logits."""
    plain = plain.assign(start=index[plain["sample"]]).sort_values(["start", "step"])
    moved = walked[walked["step"] > 0]
    assert len(plain) == len(moved)
    for name in attributes.columns():
        gap = np.abs(plain[name].to_numpy() - moved[f"logit:{name}"].to_numpy()).max()
        assert gap < 1e-3, (name, gap)


if __name__ == "__main__":
    main()
