"""`python -m editbench.bank.published PATH ...`: say what published files hold.

Nothing in the files is run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from editbench.bank.published.describe import describe
from editbench.base.errors import EditbenchError
from editbench.base.output import steady_output


def main(argv: list[str] | None = None) -> int:
    """Print the description of each file.

    Args:
        argv: the paths; None for those of the command line.

    Returns:
        The exit code: 1 where a file could not be described.
    """
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
        # One bad file does not hide the descriptions of the others.
        except EditbenchError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    with steady_output():
        code = main()
    sys.exit(code)
