"""The `editbench` command."""

from __future__ import annotations

import importlib
import sys

from editbench.base.errors import EditbenchError, UnknownName

COMMANDS = {
    "demo": "every method on every attribute of the embedded world, then a table and an HTML report",
    "run": "one job or, with -m, a sweep over methods, attributes and seeds",
    "plan": "what a sweep would run, and what of it is there already",
    "report": "tables, figures and one HTML page from finished runs",
    "human": "pages on which people choose between two edits, and the analysis of their answers",
    "baseline": "pin the numbers of finished runs, with tolerances and a reason",
    "check": "compare finished runs with pinned numbers; fails where one moved",
    "conform": "check an editor of your own against the contract, without a benchmark",
    "list": "methods, generators, attributes, metrics and experiments, a line each",
    "bank": "build, import or describe the bank of samples that editors share",
    "invert": "real images into the generator's latents, to edit them; real beside generated",
    "convert": "a StyleGAN2 checkpoint of another project as one safe file, checked by decoding",
    "dataset": "pack image folders and arrays with labels, to train a world on",
    "world": "train, pack and describe the embedded world",
    "scorer": "check a classifier of your own: range, sign, shares of its classes, with pictures",
    "fetch": "get the published networks of metrics (FID, LPIPS), or say where they lie",
    "doctor": "what this machine can do, with a self-test",
}
HELP = """usage: editbench COMMAND [...]

Compare GAN image editors: one generator, the same start images, one independent judge.

commands:
{commands}

examples:
  editbench demo
  editbench run -m method=gradctrl,interfacegan attribute=smile,age
  editbench report runs

`editbench COMMAND --help` shows a command's options and examples.
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 fine, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(
            HELP.format(
                commands="\n".join(f"  {name:8} {about}" for name, about in COMMANDS.items())
            )
        )
        return 0 if argv else 2
    try:
        if argv[0] not in COMMANDS:
            raise UnknownName("command", argv[0], COMMANDS)
        return importlib.import_module(f"editbench.commands.{argv[0]}").main(argv[1:])
    except EditbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownName) else 1
    except KeyboardInterrupt:
        print(
            "stopped; what was finished is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
