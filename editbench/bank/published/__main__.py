"""`python -m editbench.bank.published PATH ...`: say what published files hold, without running anything in them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from editbench.bank.published.describe import describe
from editbench.base.errors import EditbenchError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m editbench.bank.published",
        description="Say what published files hold: "
        "boundaries, directions, scores, GANSpace components, checkpoints, data folders.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help=".npy, .pkl, .pt, .pth, a GradCtrl folder",
    )
    status = 0
    for path in parser.parse_args(argv).paths:
        try:
            print(f"{path}:", *describe(path), sep="\n  ")
        except EditbenchError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
