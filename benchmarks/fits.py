"""Measures the CPU time of fitting methods of the demo, against the time of the images they decode.

Settings and bank are those of `editbench demo`. Each method is fitted from nothing for all
attributes, and then tuned for one attribute, in one thread. In the same run, the script measures
how long it takes to decode and score images in batches of 64. The columns are:

    CPU s         CPU seconds of the fit and the tuning
    images        images that the generator decoded for them, including passes that compute
                  derivatives
    / decoding    CPU seconds of the fit, divided by those of decoding and scoring as many images in
                  batches of 64. What exceeds 1 is not decoding. The column is empty if the fit
                  decodes no image.

The script uses the bank of the demo, which it builds first (some minutes) if the cache does not
have it.

    python benchmarks/fits.py                               # seven slow fits, 40 CPU seconds
    python benchmarks/fits.py ganspace --attribute age      # one method
    python benchmarks/fits.py --set cache=FOLDER            # with the bank of another cache

docs/methods.md reports the result. Use it to find fits that spend their time outside the networks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from editbench.base.allocator import keep_freed_memory
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
BATCH = 64  # images that are decoded and scored together
ROUNDS = 10  # measurements of a batch; the fastest counts


def load_fit_data(settings: Settings) -> FitData:
    """Load the data that the fit of a job may use."""
    networks = load_networks(settings)
    names = check_protocol(settings, networks.judge.attributes)
    bank = load_bank(settings).select(names)
    return fit_data(settings, bank, networks.select(names))


def seconds_per_image(data: FitData) -> float:
    """Measure decoding and scoring: CPU seconds per image, in the fastest of several rounds."""
    codes = Codes(Space.W, data.tune.codes(Space.W)[:BATCH])
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        data.score(codes)
        fastest = min(fastest, time.process_time() - began)
    return fastest / BATCH


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "methods",
        nargs="*",
        default=METHODS,
        help=f"names of methods of the demo (default: {', '.join(METHODS)})",
    )
    parser.add_argument(
        "--attribute",
        default="smile",
        help="attribute that the methods are tuned for (default: %(default)s)",
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
    total = 0.0
    print(f"{'method':24s}{'CPU s':>8s}{'images':>10s}{'/ decoding':>12s}")
    for settings in demo_settings(args.methods, Path("runs/demo"), "cpu", args.set):
        data = load_fit_data(settings)
        editor = load_editor(settings)
        # The harness does this before any other call.
        editor.bind(data.generator, data.teacher)
        image_seconds = seconds_per_image(data)
        decoded_before = data.generator.decoded
        began = time.process_time()
        editor.fit(data)
        editor.tune(data, args.attribute)
        seconds = time.process_time() - began
        images = data.generator.decoded - decoded_before
        ratio = ""
        # The fit of a method that only looks at latents decodes no images.
        if images:
            ratio = f"{seconds / (images * image_seconds):.2f}"
        print(f"{settings.method.name:24s}{seconds:8.2f}{images:10d}{ratio:>12s}", flush=True)
        total += seconds
    print(f"{'all':24s}{total:8.2f}")


if __name__ == "__main__":
    main()
