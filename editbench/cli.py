"""The `editbench` command: finds the command and gives every ending an exit code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import TypeGuard

from editbench.base.allocator import keep_freed_memory
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.output import steady_output
from editbench.base.threads import wait_briefly

# Name of a command, which is that of its module in editbench.commands -> what it does. The modules
# are imported one at a time, so that `--help` does not wait for torch.
COMMANDS = {
    "demo": "run every method on every attribute of the embedded world, and report",
    "run": "run one job or, with -m, a sweep over methods, attributes and seeds",
    "plan": "show which jobs a sweep would run and which are already finished",
    "report": "make tables, figures and one HTML page from finished runs",
    "atlas": "show all directions of a method on one page with images, to look for controls",
    "transfer": "compare the rankings of the methods in two or more worlds",
    "human": "make pages on which people choose between two edits, and analyse their answers",
    "baseline": "pin the numbers of finished runs, with tolerances and a reason",
    "check": "compare finished runs with pinned numbers; fail if one has moved",
    "new": "write a template for an editor, a metric, a world or a scorer of your own",
    "conform": "check an editor or a metric of your own against its contract, without a benchmark",
    "list": "list methods, generators, attributes, metrics and experiments, one per line",
    "bank": "build, import or describe the bank of samples that editors share",
    "invert": "project real images into the generator's latent space, to edit them",
    "convert": "convert checkpoints of StyleGAN2, StyleGAN3 and CelebA-HQ classifiers",
    "dataset": "pack labelled image folders and arrays, to train a world on them",
    "world": "train, pack and describe the embedded world",
    "scorer": "check a classifier of your own: input range, signs, class shares, with images",
    "fetch": "download published networks (FID, LPIPS, digiface), or show where they are",
    "doctor": "show what this machine supports, and run a self-test",
}
# Commands that keep what they finished, and go on from there when they are called again.
RESUMED = ("demo", "run", "atlas", "bank", "invert", "dataset", "world", "fetch")
HELP = """usage: editbench COMMAND [...]

Compare GAN image editors: one generator, the same start images, one independent judge.

commands:
{commands}

examples:
  editbench demo
  editbench run -m method=gradctrl,interfacegan attribute=smile,age
  editbench report runs

`editbench COMMAND --help` shows a command's options and examples; `editbench --version` the version.
"""
FINE = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # as shells give Ctrl-C
CLOSED_PIPE = 141  # as shells give SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words; None takes those of the process.

    Returns:
        The exit code: 0 fine, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 141 where the reader
        of a pipe has gone.
    """
    if argv is not None:
        return _run_steadily(list(argv))
    # The process is the command's own; whoever calls `main` with words has one of theirs.
    keep_freed_memory()
    wait_briefly()
    code = _run_steadily(sys.argv[1:])
    # The process ends. Otherwise Python would search the objects of all libraries for cycles once
    # more, which takes half a second.
    gc.freeze()
    return code


def _run_steadily(words: list[str]) -> int:
    """Run a command whose output may be lost, as with a closed pipe; its exit code."""
    with steady_output() as output:
        code = _run_guarded(words)
        output.flush()
        if output.lost is None or code != FINE:
            return code
        if isinstance(output.lost, BrokenPipeError):
            return CLOSED_PIPE
        print(f"error: standard output is lost ({output.lost.strerror})", file=sys.stderr)
        return FAILED


def _run_guarded(words: list[str]) -> int:
    """Run a command; its exit code, whatever it ends with."""
    with _noted_interrupts() as interrupts:
        try:
            return run_command(words)
        except (Exception, KeyboardInterrupt) as error:
            if interrupts or isinstance(error, KeyboardInterrupt):
                return _end_stopped(words)
            if _is_refused_path(error):
                print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
                return FAILED
            if not isinstance(error, EditbenchError):
                raise
            print(f"error: {error}", file=sys.stderr)
            if isinstance(error, UnknownName):
                return WRONG_USAGE
            return FAILED


def _is_refused_path(error: BaseException) -> TypeGuard[OSError]:
    """Whether the system refused a path, as for a folder that may not be entered, a name that is too
    long or a full disk.

    A path on the command line may be tested anywhere. A file that is missing is not included: where
    this can be due to the user, there is an explanation of its own.
    """
    is_named = isinstance(error, OSError) and error.filename is not None
    return is_named and not isinstance(error, FileNotFoundError)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """List every Ctrl-C within the block.

    An exception alone does not tell: NumPy that is stopped during its import, for example, answers
    KeyboardInterrupt with an ImportError.

    Yields:
        A list that grows with every Ctrl-C.
    """
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    # A process in the background ignores Ctrl-C, and other threads cannot set a handler.
    is_ours = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not is_ours:
        yield seen
        return

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _end_stopped(words: list[str]) -> int:
    """Print that Ctrl-C stopped the command; the exit code."""
    message = "stopped"
    if words and words[0] in RESUMED:
        message += "; what was finished is kept, and the same command goes on from there"
    print(message, file=sys.stderr)
    return INTERRUPTED


def run_command(words: list[str]) -> int:
    """Find the command and run it; its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        lines = [f"  {name:8} {about}" for name, about in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        if not words:  # help that nobody asked for
            return WRONG_USAGE
        return FINE
    if words[0] in ("-V", "--version"):
        print(f"editbench {metadata.version('editbench')}")
        return FINE
    if words[0] not in COMMANDS:
        raise UnknownName("command", words[0], COMMANDS)
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise EditbenchError("the current folder was deleted: change to another one") from error
    from editbench.base.user_code import search_configuration

    # Also for commands that compose no configuration: a report imports the figures of metrics.
    search_configuration([])
    return importlib.import_module(f"editbench.commands.{words[0]}").main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
