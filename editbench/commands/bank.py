"""`editbench bank`: build the bank of a configuration, import one from files, or say what one holds."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from editbench.bank.bank import Bank
from editbench.bank.importing import import_bank
from editbench.bank.published.gradctrl import import_gradctrl
from editbench.bank.published.interfacegan import import_scores
from editbench.base.errors import EditbenchError
from editbench.commands.run import check_words, expand_experiment, run_hydra
from editbench.run.job import Outcome
from editbench.run.loading import bank_folder, load_bank, load_networks
from editbench.run.record import peak_memory_mb
from editbench.run.sweep import join_sweep, leave_outcome, say

HELP = """usage: editbench bank [--parts N] [group=option ...] [key=value ...]
       editbench bank import --w W.npy --logits LOGITS.npy --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank import --w W.npy --scores NAME=SCORES.npy ... --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank import --gradctrl FOLDER --attributes ATTRIBUTES.yaml --out FOLDER
       editbench bank info FOLDER

Build the bank of samples that all editors share: latents and the logits of teacher and judge. Finished shards are
kept, so a build that was stopped goes on; several processes may build one bank at once, each taking shards that no
other holds. --parts N starts N of them through hydra/launcher, on this machine or as an array of jobs on a cluster.

examples:
  editbench bank                                    the default bank: 50,000 samples of faces32
  editbench bank bank.n=500000 bank.workers=2       half a million, at constant memory
  editbench bank --parts 8 budget=paper hydra/launcher=submitit_slurm hydra.launcher.cpus_per_task=4
  editbench bank +experiment=ffhq_latents data=../shared/data
  editbench bank import --w w.npy --logits logits.npy --attributes attributes.yaml --out runs/my_bank
"""


def main(argv: list[str]) -> int:
    if not argv or not {"-h", "--help"} & set(argv[:1]):
        if argv[:1] == ["import"]:
            return import_main(argv[1:])
        if argv[:1] == ["info"]:
            return info_main(argv[1:])
        argv = as_parts(expand_experiment(argv))
        check_words(argv)
        return run_hydra(build, argv)
    print(HELP)
    return 0


def as_parts(argv: list[str]) -> list[str]:
    """`--parts N` as the sweep it stands for: N jobs with the same bank."""
    if "--parts" not in argv:
        return argv
    at = argv.index("--parts")
    number = argv[at + 1] if at + 1 < len(argv) else ""
    if not number.isdecimal() or not int(number):
        raise EditbenchError(
            f"--parts {number}: give how many jobs are to build the bank, as in --parts 8"
        )
    return [*argv[:at], *argv[at + 2 :], "-m", f"+part=range({number})"]


def build(cfg: DictConfig) -> Outcome:
    """Build what is missing of the bank and say so; in a multirun, leave the outcome for the summary."""
    join_sweep(cfg)
    part = f"part {cfg.part}" if "part" in cfg else "bank"
    try:
        outcome = _build(cfg, part)
    except EditbenchError as error:
        say(f"error: {error}")
        outcome = Outcome("failed", str(error), "", False)
    leave_outcome(part, outcome)
    return outcome


def _build(cfg: DictConfig, part: str) -> Outcome:
    began = time.perf_counter()
    folder, _ = bank_folder(cfg)
    existed = (folder / "bank.json").exists()
    networks = load_networks(cfg)
    before = networks.generator.decoded
    bank = load_bank(cfg)
    seconds = time.perf_counter() - began
    if "part" in cfg:
        say(
            f"{part}: computed {networks.generator.decoded - before} of {len(bank)} samples in {seconds:.1f} s"
        )
        return Outcome("done", "", "", existed)
    done = "verified" if existed else "built"
    say(
        f"{done} {bank.folder}: {len(bank)} samples in {seconds:.1f} s ({len(bank) / seconds:.0f}/s), "
        f"peak memory {peak_memory_mb(cfg.device):.0f} MiB"
    )
    describe(bank)
    return Outcome("done", "", "", existed)


def describe(bank: Bank) -> None:
    """Print splits and the marginals by the judge."""
    parts = {name: bank.spec.split(name) for name in ("fit", "tune", "test")}
    print(
        f"bank {bank.id}: {len(bank)} samples; "
        + ", ".join(f"{k} {b - a}" for k, (a, b) in parts.items())
    )
    if left_out := bank.meta.get("options", {}).get("left_out"):
        print(f"  left out: {left_out} rows with an invalid score")
    if bank.meta.get("leaking"):
        print(
            "  leaking: the judge's logits are the teacher's, and runs on this bank are marked so; give the "
            "judge's own with --logits and --judge-logits"
        )
    attributes = bank.judge_attributes
    counts = {a.name: np.zeros(len(a.classes), np.int64) for a in attributes}
    for logits in bank.array("judge").stream():
        labels = attributes.labels(torch.from_numpy(np.array(logits))).numpy()
        for k, a in enumerate(attributes):
            counts[a.name] += np.bincount(labels[:, k], minlength=len(a.classes))
    for a in attributes:
        print(
            f"  {a.name}: "
            + ", ".join(f"{c} {n / len(bank):.3f}" for c, n in zip(a.classes, counts[a.name]))
        )


def import_main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "editbench bank import",
        description="Make a bank of latents and logits that you "
        "have. It is judged in latent space: edits are scored by a scorer of latents.",
    )
    parser.add_argument("--w", type=Path, help=".npy (n, w_dim) float: the latents")
    logits = parser.add_mutually_exclusive_group(required=True)
    logits.add_argument("--logits", type=Path, help=".npy (n, width) float: the teacher's logits")
    logits.add_argument(
        "--scores",
        nargs="+",
        metavar="NAME=FILE",
        help="InterFaceGAN's .npy (n, 1), one an attribute",
    )
    logits.add_argument(
        "--gradctrl", type=Path, help="GradCtrl's data folder: latents.pkl, logits/logits_NAME.pkl"
    )
    parser.add_argument(
        "--invalid", type=float, help="a score that means none was found: such rows are left out"
    )
    parser.add_argument(
        "--judge-logits", type=Path, help=".npy (n, width): the judge's (default: the teacher's)"
    )
    parser.add_argument(
        "--attributes",
        type=Path,
        required=True,
        help="YAML list of {name, classes, ordered}; one logit column for two classes, else K",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the new bank; use it with bank.path=FOLDER",
    )
    args = parser.parse_args(argv)
    if (args.gradctrl is None) != (args.w is not None) or (args.judge_logits and not args.logits):
        parser.error(
            "--logits and --scores need --w, --gradctrl has its own; --judge-logits goes with --logits"
        )
    if args.invalid is not None and not args.scores:
        parser.error("--invalid goes with --scores")
    if args.gradctrl:
        bank = import_gradctrl(args.out, args.gradctrl, args.attributes)
    elif args.scores:
        bank = import_scores(
            args.out, args.w, named_files(args.scores), args.attributes, args.invalid
        )
    else:
        bank = import_bank(args.out, args.w, args.logits, args.attributes, args.judge_logits)
    describe(bank)
    return 0


def named_files(words: list[str]) -> dict[str, Path]:
    pairs = [word.partition("=") for word in words]
    for name, equals, file in pairs:
        if not name or not equals or not file:
            raise EditbenchError(f"--scores {name}{equals}{file}: give each as NAME=FILE.npy")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise EditbenchError("--scores names an attribute twice: give each one file")
    return {name: Path(file) for name, _, file in pairs}


def info_main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "editbench bank info", description="Verify a bank's checksums and describe it."
    )
    parser.add_argument("folder", type=Path)
    describe(Bank(parser.parse_args(argv).folder))
    return 0
