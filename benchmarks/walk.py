"""Measures the CPU time of the engine's walks, against a plain script that decodes the same codes.

Both walk from the same starts along the same straight lines in W (method random, attribute smile),
decode and score in batches of 64, and stop a walk when the judge sees the target class. This
benchmark asserts that both took the same steps and saw the same logits.

    script   a loop that keeps sample, step and logits in lists, and makes one table at the end
    engine   `walk_starts` of editbench, which also checks starts and codes, records distances,
             classes and crossings, and keeps images

The output has one row per pair with the CPU seconds of both, in one thread. The last line gives the
rate of the engine as a share of the script's rate: CPU seconds of the script divided by those of
the engine, the median over the pairs. A share of 1 means that the engine costs nothing beyond
decoding and scoring.

    python benchmarks/walk.py                           # about 80 CPU seconds
    python benchmarks/walk.py --starts 20 --pairs 1     # the smallest run

Both use the bank of `budget=demo`, which is built first (some minutes) if the folder --cache does
not have it. The result guards editbench/walk/engine.py.
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
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.spec import EngineSpec

ATTRIBUTE = "smile"  # the attribute that is edited
LENGTH = 0.2  # of a step in W; some starts then cross early, and some never
BATCH = 64  # images that are decoded together
TOLERANCE = 1e-3  # largest difference of a logit between both walks


@torch.no_grad()
def walk_with_script(
    generator: Generator,
    judge: Scorer,
    codes: Tensor,
    moves: Tensor,
    target: Tensor,
    spec: EngineSpec,
) -> pd.DataFrame:
    """Walk along a straight line from each start, until the judge sees the target class.

    Args:
        generator: decodes W.
        judge: scores the images.
        codes: (n, d) starts.
        moves: (n, d) what a step adds to the code.
        target: (n,) target class of each start.
        spec: of the walk that this one is compared with.

    Returns:
        A row per decoded image: sample, step, whether it is in the target class, and the logits.
    """
    going = torch.arange(len(codes))
    codes = codes.clone()
    steps = []
    for step in range(1, spec.max_steps + 1):
        codes[going] += moves[going]
        parts = []
        for part in going.split(spec.batch):
            parts.append(judge(generator.decode(Codes(Space.W, codes[part]))))
        logits = torch.cat(parts)
        there = judge.attributes.labels(logits, ATTRIBUTE) == target[going]
        rows = pd.DataFrame(logits.numpy(), columns=judge.attributes.columns())
        steps.append(rows.assign(sample=going.numpy(), step=step, there=there.numpy()))
        going = going[~there]
        # All walks have reached their target class.
        if not len(going):
            break
    return pd.concat(steps, ignore_index=True)


def check_same(
    plain: pd.DataFrame, walked: pd.DataFrame, index: np.ndarray, attributes: Attributes
) -> None:
    """Assert that both walks took the same steps and saw the same logits.

    Args:
        plain: rows of the script.
        walked: rows of the engine.
        index: (n,) bank indices of the starts.
        attributes: of the judge.
    """
    plain = plain.assign(start=index[plain["sample"]]).sort_values(["start", "step"])
    # The engine also has a row for each start itself, which is step 0.
    moved = walked[walked["step"] > 0]
    assert len(plain) == len(moved)
    for name in attributes.columns():
        gap = np.abs(plain[name].to_numpy() - moved[f"logit:{name}"].to_numpy()).max()
        assert gap < TOLERANCE, (name, gap)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--starts", type=int, default=300, help="starts.n of the job (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=5, help="measurements of both walks (default: %(default)s)"
    )
    parser.add_argument(
        "--cache",
        default="runs/cache",
        help="folder that has, or receives, the bank (default: %(default)s)",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = ["method=random", f"attribute={ATTRIBUTE}", f"cache={args.cache}"]
    settings = compose_settings([*words, "budget=demo", f"starts.n={args.starts}"])
    names = [ATTRIBUTE]
    # Scorers of one attribute, as in a job.
    networks = load_networks(settings).select(names)
    generator = networks.generator
    judge = networks.judge
    bank = load_bank(settings).select(names)
    starts = draw_targets(settings.starts, bank)[ATTRIBUTE]
    editor = RandomDirection(delta=LENGTH, scale_step=False)
    codes, logits = start_codes(editor, generator, bank, starts, "cpu")
    target = torch.from_numpy(starts.target)
    spec = EngineSpec(max_steps=settings.engine.max_steps, batch=BATCH)
    sigma = bank.sigma["judge"]
    shares = []
    decoded = 0
    print(f"{'pair':>5} {'script, CPU s':>14} {'engine, CPU s':>14}")
    for pair in range(args.pairs):
        # The engine asks the editor for its directions, so the script's time includes them, too.
        began = time.process_time()
        moves = LENGTH * editor.directions(torch.from_numpy(starts.index), codes)
        plain = walk_with_script(generator, judge, codes, moves, target, spec)
        between = time.process_time()
        inputs = WalkInputs(editor, generator, ATTRIBUTE, starts, codes, logits)
        walked = walk_starts(inputs, judge, sigma, spec)
        ended = time.process_time()
        check_same(plain, walked.table, starts.index, judge.attributes)
        decoded = len(plain)
        script_seconds = between - began
        engine_seconds = ended - between
        shares.append(script_seconds / engine_seconds)
        print(f"{pair:5} {script_seconds:14.2f} {engine_seconds:14.2f}", flush=True)
    print(f"{len(starts)} starts, {decoded} decoded images")
    print(f"rate of the engine / rate of the script: {statistics.median(shares):.3f}")


if __name__ == "__main__":
    main()
