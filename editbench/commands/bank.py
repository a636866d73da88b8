"""`editbench bank`: build the bank of a configuration, import one from files, or describe one."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.base.progress import print_message
from editbench.commands.command_line import CommandLine, split_values
from editbench.commands.options import CommandParser, examples_of
from editbench.run.environment import peak_memory_mb
from editbench.run.job_names import PART
from editbench.run.outcome import Outcome, failed_outcome
from editbench.run.settings import Settings
from editbench.run.sweep import run_hydra
from editbench.run.task import (
    in_sweep,
    join_sweep,
    prints_its_line,
    take_number,
    write_outcome_in_sweep,
)

HELP = """usage: editbench bank [--parts N] [group=option ...] [key=value ...]
       editbench bank import --w W.npy --logits LOGITS.npy --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank import --w W.npy --scores NAME=SCORES.npy ... --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank import --gradctrl FOLDER --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank info FOLDER

Build the bank of samples that all editors share: latents and the logits of teacher and judge.
Finished shards are kept, so the same command resumes an interrupted build. Several processes may
build one bank at once; each computes shards that no other process computes. --parts N starts N of
them through hydra/launcher, on this machine or as an array of jobs on a cluster.

examples:
  editbench bank                                    the default bank: 50,000 samples of faces32
  editbench bank bank.n=500000 bank.workers=2       half a million, at constant memory
  editbench bank --parts 8 budget=paper hydra/launcher=submitit_slurm hydra.launcher.cpus_per_task=4
  editbench bank experiment=ffhq_latents data=FOLDER
  editbench bank import --w w.npy --logits logits.npy --attributes attributes.yaml --out runs/my_bank
  editbench bank info runs/my_bank
"""
PARTS = "--parts"

# Modules that need torch are imported where they are used, so that wrong values are reported first.
if TYPE_CHECKING:
    from editbench.bank.bank import Bank


def main(argv: list[str]) -> int:
    # Only the first word, since `import` and `info` have their own help.
    if {"-h", "--help"} & set(argv[:1]):
        print(HELP)
        return 0
    if argv[:1] == ["import"]:
        return import_main(argv[1:])
    if argv[:1] == ["info"]:
        return info_main(argv[1:])
    # All other words configure the bank to build.
    line = CommandLine.parse(as_parts(argv), "editbench bank", own=(PARTS,))
    if line.shows:
        raise EditbenchError(f"{line.shows} does not apply to a bank (see `editbench bank --help`)")
    line = line.with_names()
    line.check()
    command = shlex.join(["editbench", "bank", *argv])
    return run_hydra(
        build_task, line.overrides, line.folders, line.sweep, lambda failed, jobs: command
    )


def as_parts(argv: list[str]) -> list[str]:
    """Replace `--parts N` by the words of a sweep over N jobs with the same bank."""
    argv = list(split_values(argv, (PARTS,)))
    if PARTS not in argv:
        return argv
    # Nothing reads the key `part`. It only makes N jobs of one configuration, which divide the
    # shards among themselves by locks.
    at = argv.index(PARTS)
    # A slice, since no word may follow the flag.
    number = "".join(argv[at + 1 : at + 2])
    if not number.isdecimal() or not int(number):
        raise EditbenchError(
            f"{PARTS} {number}: must be the number of jobs that build the bank, such as {PARTS} 8"
        )
    return [*argv[:at], *argv[at + 2 :], "-m", f"+{PART}=range({number})"]


def build_task(config: DictConfig) -> Outcome:
    """Build the missing shards of a bank, under Hydra. In a sweep, write the outcome of the job.

    Args:
        config: of the bank; in a sweep also the number of the part.

    Raises:
        EditbenchError: the bank cannot be built, and this is not a sweep.
    """
    number = take_number(config)
    part = f"part {config[PART]}" if PART in config else "bank"
    try:
        outcome, text = build_part(join_sweep(Settings.from_config(config)), part)
    except EditbenchError as error:
        # Outside a sweep, the command prints the error.
        if not in_sweep():
            raise
        text = f"error: {error}"
        outcome = failed_outcome(error)
    if prints_its_line() and text:
        print_message(f"{part}: {text}")
    write_outcome_in_sweep(part, outcome, text, number)
    return outcome


def build_part(settings: Settings, part: str) -> tuple[Outcome, str]:
    """Build the missing shards of a bank.

    Args:
        settings: of the bank.
        part: title of the part; 'bank' for a bank that is built as a whole and then described.

    Returns:
        The outcome, and a text about the part; '' for the whole bank.
    """
    from editbench.run.loading import load_bank, load_networks, locate_bank

    # Including the time to load the networks, since the user waits for it too.
    began = time.perf_counter()
    existed = locate_bank(settings).is_built
    generator = load_networks(settings).generator
    before = generator.decoded
    bank = load_bank(settings)
    seconds = time.perf_counter() - began
    # A part reports only the samples that it computed itself.
    if part != "bank":
        computed = generator.decoded - before
        text = f"computed {computed} of {len(bank)} samples in {seconds:.1f} s"
        return Outcome("done", reused=existed), text
    done = "verified" if existed else "built"
    print_message(
        f"{done} {bank.folder}: {len(bank)} samples in {seconds:.1f} s "
        f"({len(bank) / seconds:.0f}/s), peak memory {peak_memory_mb(settings.device):.0f} MiB"
    )
    print_bank(bank)
    return Outcome("done", reused=existed), ""


def print_bank(bank: Bank) -> None:
    """Print the splits of a bank, and the share of every class according to the judge."""
    sizes = []
    for name in ("fit", "tune", "test"):
        first, last = bank.spec.split(name)
        sizes.append(f"{name} {last - first}")
    print(f"bank {bank.id}: {len(bank)} samples; {', '.join(sizes)}")
    left_out = bank.meta.get("options", {}).get("left_out")
    if left_out:
        print(f"  left out: {left_out} rows with an invalid score")
    for name, kind in bank.meta.get("options", {}).get("values", {}).items():
        print(f"  {name}: its values lie in [0, 1] and were read as {kind}")
    # Known only for an imported bank; otherwise it depends on the networks.
    if bank.meta.get("leaking"):
        print(
            "  leaking: the judge's logits are the teacher's, so runs on this bank are marked as "
            "leaking; to avoid this, give the judge's own with --logits and --judge-logits"
        )
    for name, counts in class_counts(bank).items():
        shares = [f"{label} {count / len(bank):.3f}" for label, count in counts.items()]
        print(f"  {name}: {', '.join(shares)}")


def class_counts(bank: Bank) -> dict[str, dict[str, int]]:
    """Attribute -> class -> number of samples that the judge assigns to the class."""
    import numpy as np
    import torch

    attributes = bank.judge_attributes
    counts = {item.name: np.zeros(len(item.classes), np.int64) for item in attributes}
    # Shard by shard, since the logits of a large bank may not fit into memory.
    for logits in bank.array("judge").stream():
        # Copied, since torch warns about arrays that are read-only, such as a memory map.
        labels = attributes.labels(torch.from_numpy(np.array(logits))).numpy()
        for column, item in enumerate(attributes):
            counts[item.name] += np.bincount(labels[:, column], minlength=len(item.classes))
    named: dict[str, dict[str, int]] = {}
    for item in attributes:
        named[item.name] = dict(zip(item.classes, counts[item.name].tolist()))
    return named


def import_main(argv: list[str]) -> int:
    from editbench.bank.importing import import_bank
    from editbench.bank.published.gradctrl import import_gradctrl
    from editbench.bank.published.interfacegan import import_scores

    parser = _make_import_parser()
    args = parser.parse_args(argv)
    # GradCtrl's folder includes latents; the other formats do not.
    if args.gradctrl and args.w:
        parser.error("--gradctrl has its own latents: leave --w out")
    if not args.gradctrl and not args.w:
        parser.error("--logits and --scores need --w")
    if args.judge_logits and not args.logits:
        parser.error("--judge-logits goes with --logits")
    # InterFaceGAN's scores mark a failed prediction by a special value; logits do not.
    if args.invalid is not None and not args.scores:
        parser.error("--invalid goes with --scores")
    if args.gradctrl:
        bank = import_gradctrl(args.out, args.gradctrl, args.attributes, args.values)
    elif args.scores:
        bank = import_scores(
            args.out, args.w, named_files(args.scores), args.attributes, args.invalid, args.values
        )
    else:
        bank = import_bank(
            args.out, args.w, args.logits, args.attributes, args.judge_logits, args.values
        )
    print_bank(bank)
    return 0


def _make_import_parser() -> CommandParser:
    from editbench.bank.values import KINDS, OPTION

    parser = CommandParser(
        "editbench bank import",
        description="Make a bank from your own latents and logits. Edits on it are judged in latent "
        "space, by a scorer of latents.",
        epilog=examples_of("editbench bank import", HELP),
    )
    parser.add_argument("--w", type=Path, help=".npy (n, w_dim) float: the latents")
    logits = parser.add_mutually_exclusive_group(required=True)
    logits.add_argument("--logits", type=Path, help=".npy (n, width) float: the teacher's logits")
    logits.add_argument(
        "--scores",
        nargs="+",
        metavar="NAME=FILE",
        help="InterFaceGAN's .npy (n, 1), one per attribute",
    )
    logits.add_argument(
        "--gradctrl", type=Path, help="GradCtrl's data folder: latents.pkl, logits/logits_NAME.pkl"
    )
    parser.add_argument(
        "--invalid", type=float, help="the score that marks rows without a score; they are left out"
    )
    parser.add_argument(
        "--judge-logits", type=Path, help=".npy (n, width): the judge's (default: the teacher's)"
    )
    parser.add_argument(
        OPTION,
        choices=KINDS,
        help="the meaning of values that all lie in [0, 1]; without it they are refused, except "
        "that --scores between 0 and 1 are probabilities",
    )
    parser.add_argument(
        "--attributes",
        type=Path,
        required=True,
        help="YAML list of {name, classes, ordered}; one logit column for two classes, K for K",
    )
    parser.add_argument(
        "--out",
        type=usable_folder,
        required=True,
        help="folder of the new bank; use it with bank.path=FOLDER",
    )
    return parser


def named_files(words: list[str]) -> dict[str, Path]:
    """Attribute -> file, from words of the form NAME=FILE.npy.

    Raises:
        EditbenchError: a word has another form, or an attribute is named twice.
    """
    files: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not name or not equals or not file:
            raise EditbenchError(f"--scores {word}: give each as NAME=FILE.npy")
        if name in files:
            raise EditbenchError("--scores names an attribute twice: give each one file")
        files[name] = Path(file)
    return files


def info_main(argv: list[str]) -> int:
    from editbench.bank.bank import Bank

    parser = CommandParser(
        "editbench bank info",
        description="Verify a bank's checksums and describe it.",
        epilog=examples_of("editbench bank info", HELP),
    )
    parser.add_argument("folder", type=Path, help="of the bank")
    # Opening a bank verifies its checksums.
    print_bank(Bank(parser.parse_args(argv).folder))
    return 0
