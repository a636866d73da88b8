"""Compares penalties of `linear_regression` on the tune split of the demo, scored by the teacher.

The method's default takes the penalty that predicts left-out samples best. This script shows how
little the prediction depends on the penalty, and how much the edits do. Neither the judge nor the
test split is used. The columns are:

    penalty     of the ridge regression, in mean variances of a channel
    explained   share of the log-odds' variance that is explained on left-out samples of the fit
                split, the mean over the attributes
    columns of  share of clean crossings: walks that reach the target class before any other label
    attributes  changes, from the tune samples nearest to the boundaries of all attributes
    all         the mean of these shares

The script uses the bank of the demo, which it builds first (some minutes) if the cache does not
have it.

    python benchmarks/regression_penalty.py                          # 200 samples, 44 CPU seconds
    python benchmarks/regression_penalty.py --samples 30             # a short run
    python benchmarks/regression_penalty.py --set cache=FOLDER       # with the bank of another cache

docs/methods.md reports the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from fits import load_fit_data

from editbench.base.allocator import keep_freed_memory
from editbench.commands.demo import demo_settings
from editbench.methods.linear_regression import LinearRegression
from editbench.methods.shared import meta_validation

PENALTIES: tuple[float | str, ...] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, "leave_one_out")
# A quarter of the default: a step this short hardly passes the boundary.
DELTA = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=200,
        help="tune samples per attribute (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="overrides of `editbench demo`, such as cache=FOLDER (default: none)",
    )
    args = parser.parse_args()
    # The command sets its memory options in the same way.
    keep_freed_memory()
    torch.set_num_threads(1)
    # The paper sets the number, so it is no argument of the search.
    meta_validation.EXAMPLES = args.samples
    (settings,) = demo_settings(["linear_regression"], Path("runs/demo"), "cpu", args.set)
    data = load_fit_data(settings)
    names = data.attributes.names
    print(
        f"{'penalty':>14s}{'explained':>11s}" + "".join(f"{name:>12s}" for name in names) + "   all"
    )
    for penalty in PENALTIES:
        editor = LinearRegression(penalty, delta=DELTA)
        notes = editor.fit(data).notes
        explained = np.mean([notes[f"explained.{name}"] for name in names])
        shares = []
        for name in names:
            # A single choice, which is the editor as it is.
            found, _ = meta_validation.score_choices(editor, data, name, [0], lambda choice: None)
            shares.append(found[0])
        row = "".join(f"{share:12.3f}" for share in shares)
        print(f"{penalty!s:>14s}{explained:11.3f}{row}{np.mean(shares):6.3f}", flush=True)


if __name__ == "__main__":
    main()
