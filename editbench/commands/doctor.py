"""Show what this machine supports, and test whether the embedded world works on it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from editbench.bank.build import compute_block
from editbench.base.errors import BadFile, EditbenchError
from editbench.commands.options import CommandParser, add_config_dir
from editbench.networks.registry import find_file, folder, pin, published
from editbench.run.compose import compose_settings
from editbench.run.environment import environment
from editbench.run.launch import EXTRAS, installed
from editbench.run.loading import load_networks
from editbench.run.machine import devices, kinds

# Packages that nothing here needs, and what they would be for.
OPTIONAL = {
    "hydra-joblib-launcher": "sweeps over several processes",
    "hydra-submitit-launcher": "sweeps on SLURM",
    "torchvision": "not needed",
    "torch-fidelity": "not needed",
}
ROOM = 1.0  # GiB that `out` should have
WARM_UP = 64  # samples before the self-test is timed; the first ones allocate memory
TIMED = 192  # samples of the self-test that are timed
# What torch raises for a device that is busy, full or not there.
DEVICE_ERRORS = (EditbenchError, RuntimeError, AssertionError)


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench doctor",
        description=__doc__,
        epilog="examples:\n  editbench doctor --device cuda --out runs\n"
        "  editbench doctor --config-dir my_conf generator=mine scorer=mine\n"
        "The exit code is 1 if something does not work.",
    )
    parser.add_argument(
        "--device", default="cpu", help="device of the self-test and of the test of precisions"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        help="folder for runs, whose free space is checked",
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="what the self-test runs, e.g. generator=mine scorer=mine (default: the embedded world)",
    )
    add_config_dir(parser)
    args = parser.parse_intermixed_args(argv)
    report = examine_machine(args.device, args.out, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    return 1 if report["problems"] else 0


def examine_machine(
    device: str, out: Path, overrides: Sequence[str] = (), more: Sequence[Path] = ()
) -> dict[str, Any]:
    """Look at everything.

    Args:
        device: of the self-test and of the trial of precisions.
        out: folder that runs will be written to.
        overrides: words that choose the networks of the self-test.
        more: a user's own configuration folders.

    Returns:
        What was found, as plain values; 'problems' are sentences.
    """
    facts = environment()
    report: dict[str, Any] = {
        "python": facts["python"],
        "platform": facts["platform"],
        "cuda_of_torch": torch.version.cuda,
        "devices": devices(),
        "packages": facts["packages"],
        "optional": {name: version_of(name) for name in OPTIONAL},
        "launchers": {name: installed(plugin) for name, (_, plugin) in EXTRAS.items()},
    }
    problems: list[str] = []
    report["networks"] = {"folder": str(folder())}
    for name in published():
        report["networks"][name] = network(name, problems)
    report["out"] = room(out, problems)
    report["precision"] = {"device": device, "kinds": tried_kinds(device, report["devices"])}
    report["self_test"] = self_test([f"device={device}", *overrides], more, device, problems)
    report["problems"] = problems
    return report


def tried_kinds(device: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every kind of numbers on a device; none where the machine lacks it.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'.
        found: `devices()` of the machine.

    Returns:
        The fields of `NumberKind`, one mapping per kind.
    """
    name = device
    if device == "cuda":  # torch takes it for the first one
        name = "cuda:0"
    # The self-test reports a device that is not there, so nothing is said of it here.
    if name not in [item["name"] for item in found]:
        return []
    return [asdict(kind) for kind in kinds(device)]


def version_of(name: str) -> str | None:
    """Version of an installed package; None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def network(name: str, problems: list[str]) -> dict[str, Any]:
    """Where the file of a published network lies, and whether it has the published content.

    Args:
        name: of the network, one of `published()`.
        problems: a wrong content is added to it, as a sentence. A file that is not here is no
            problem.

    Returns:
        'state' in words, and 'path', None where there is no file.
    """
    file = published()[name]
    try:
        found = find_file(file)
    except BadFile as error:
        problems.append(str(error))
        return {"state": "wrong checksum", "path": str(folder() / file.name)}
    if found is None:
        return {"state": f"not installed: editbench fetch {name}", "path": None}
    # Without a published checksum the first fetch fixes one; before it there is none to compare.
    checksum = "no checksum published"
    if pin(file):
        checksum = "checksum correct"
    return {"state": f"installed, {checksum}", "path": str(found.path)}


def room(out: Path, problems: list[str]) -> dict[str, Any]:
    """Whether a folder can be written, and what is free there.

    Args:
        out: folder for runs, which need not exist.
        problems: what is wrong is added to it, as a sentence.

    Returns:
        'path', 'writable', and 'free_gib' in GiB.
    """
    # `out` need not exist yet: what counts is the nearest folder above it that does.
    there = out.absolute()
    while not os.path.exists(there):
        there = there.parent
    free = shutil.disk_usage(there).free / 2**30
    writable = there.is_dir() and os.access(there, os.W_OK)
    if not writable:
        problems.append(
            f"{out} cannot be written: for runs set out=DIR to a folder you may write to (check "
            "it with --out DIR)"
        )
    elif free < ROOM:
        problems.append(
            f"{out} has {free:.2f} GiB free, less than {ROOM:g}: for runs set out=DIR and "
            "cache=DIR on another disk (check it with --out DIR)"
        )
    return {"path": str(out), "writable": writable, "free_gib": round(free, 2)}


def self_test(
    words: Sequence[str], more: Sequence[Path], device: str, problems: list[str]
) -> dict[str, Any]:
    """Sample, decode and score: a world end to end.

    Args:
        words: overrides that choose the networks and the device.
        more: a user's own configuration folders.
        device: the same as in `words`.
        problems: the error that ended the test is added to it, as a sentence.

    Returns:
        'passed', and either 'samples_per_second' or the 'reason'.
    """
    try:
        networks = load_networks(compose_settings(words, more))
        models = (networks.generator, networks.teacher, networks.judge)
        compute_block(0, 0, WARM_UP, models, device)
        began = time.perf_counter()
        compute_block(0, WARM_UP, WARM_UP + TIMED, models, device)
    except DEVICE_ERRORS as error:
        problems.append(f"self-test: {error}")
        return {"passed": False, "reason": str(error)}
    seconds = time.perf_counter() - began
    return {"passed": True, "samples_per_second": round(TIMED / seconds, 1)}


# -- on the terminal -------------------------------------------------------------------------------
def show(report: dict[str, Any]) -> None:
    """Print what was found, a line each."""
    line("python", report["python"])
    for item in report["devices"]:
        line(item["name"], f"{item['what']}; {gib(item['memory'])} GiB, {gib(item['free'])} free")
    if len(report["devices"]) == 1:
        # A GPU that torch does not see is often a torch that was built without CUDA.
        built = "without it"
        if report["cuda_of_torch"]:
            built = f"for CUDA {report['cuda_of_torch']}"
        line("cuda", f"none: everything runs on the CPU (torch is built {built})")
    for kind in report["precision"]["kinds"]:
        line(f"{kind['name']} on {report['precision']['device']}", precision(kind))
    line("packages", ", ".join(f"{name} {version}" for name, version in report["packages"].items()))
    for name, version in report["optional"].items():
        line(name, f"{version or 'not installed'} ({OPTIONAL[name]})")
    launchers = ["basic"]  # Hydra's own, one job after the other
    for name, is_there in report["launchers"].items():
        if is_there:
            launchers.append(name)
    line("launchers", ", ".join(launchers))
    networks = dict(report["networks"])
    line("networks", networks.pop("folder"))
    for name, item in networks.items():
        line(f"  {name}", item["state"])
    out = report["out"]
    state = "writable"
    if not out["writable"]:
        state = "NOT WRITABLE"
    line(f"out {out['path']}", f"{state}, {out['free_gib']} GiB free")
    line("self-test", outcome(report["self_test"], report["precision"]["device"]))
    for problem in report["problems"]:
        print(f"problem: {problem}")


def outcome(test: dict[str, Any], device: str) -> str:
    """The self-test in words.

    Args:
        test: what `self_test` returned.
        device: on which it ran.
    """
    if not test["passed"]:
        return f"FAILED: {test['reason']}"
    return f"passed: {test['samples_per_second']:.0f} bank samples/s on {device}"


def precision(kind: dict[str, Any]) -> str:
    """One kind of numbers in words: whether it works, how exact and how fast it is."""
    if not kind["matmul"]:
        return f"no: {kind['reason']}"
    state = "works"
    if not kind["works"]:
        state = f"WRONG ({kind['reason']})"
    speed = f"{kind['matmul']:.2g} x fp32 in matrix products, {kind['conv']:.2g} x in convolutions"
    if kind["name"] == "fp32":  # the others are compared with it
        speed = "the reference"
    return f"{state}, error {kind['error']:.0e}; {speed}"


def line(name: str, value: object) -> None:
    """Print a name and a value, with the values of all lines below each other."""
    print(f"{name:26} {value}")


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.1f}"
