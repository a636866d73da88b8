"""What the fit of each method of the demo costs, in CPU seconds of one thread.

The settings and the bank are those of `editbench demo`. A method is fitted from nothing for all
attributes and then tuned for one. Beside it stands how many pictures it asks the generator for
(passes of derivatives among them), and the time over that of decoding and scoring as many in
batches of 64, measured in the same run: what is above 1 is not pictures.

    python benchmarks/fits.py [METHOD ...] [--attribute smile] [--set NAME=VALUE ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from editbench.base.memory import keep_freed_memory
from editbench.base.spaces import Codes, Space
from editbench.commands.demo import demo_settings
from editbench.run.fits import fit_data
from editbench.run.loading import load_bank, load_editor, load_networks
from editbench.run.protocol import check_protocol
from editbench.run.settings import Settings
from editbench.walk.editor import FitData

# Methods whose fit takes longer than a walk of the demo.
METHODS = (
    "navigan_spectrum",
    "navigan_svd",
    "stylespace",
    "stylespace_localised",
    "gradctrl_500",
    "ganspace",
    "neural_ode",
)
BATCH = 64
ROUNDS = 10


def open_data(settings: Settings) -> FitData:
    """What the fit of a job sees."""
    networks = load_networks(settings)
    names = check_protocol(settings, networks.judge.attributes)
    bank = load_bank(settings).select(names)
    return fit_data(settings, bank, networks.select(names))


def picture_seconds(data: FitData) -> float:
    """CPU seconds of one picture, decoded and scored; the best of a few rounds."""
    codes = Codes(Space.W, data.tune.codes(Space.W)[:BATCH])
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        data.score(codes)
        best = min(best, time.process_time() - began)
    return best / BATCH


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--attribute", default="smile")
    parser.add_argument(
        "--set", nargs="+", default=[], help="overrides as of `editbench demo`, cache=FOLDER"
    )
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    torch.set_num_threads(1)
    total = 0.0
    print(f"{'':24s}{'CPU s':>8s}{'pictures':>10s}   over their time")
    for settings in demo_settings(args.methods, Path("runs/demo"), "cpu", args.set):
        data = open_data(settings)
        editor = load_editor(settings)
        editor.bind(data.generator)
        unit = picture_seconds(data)
        before = data.generator.decoded
        began = time.process_time()
        editor.fit(data)
        editor.tune(data, args.attribute)
        seconds = time.process_time() - began
        pictures = data.generator.decoded - before
        # A fit of latents alone asks for none.
        over = f"{seconds / (pictures * unit):10.2f}x" if pictures else ""
        print(f"{settings.method.name:24s}{seconds:8.2f}{pictures:10d}{over}", flush=True)
        total += seconds
    print(f"{'all':24s}{total:8.2f}")


if __name__ == "__main__":
    main()
