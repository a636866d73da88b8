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
from editbench.base.errors import EditbenchError
from editbench.commands.fetch import network_state
from editbench.commands.options import CommandParser, add_config_dir
from editbench.networks.registry import folder, published
from editbench.run.compose import compose_settings
from editbench.run.environment import environment
from editbench.run.launch import EXTRAS, installed
from editbench.run.loading import load_networks
from editbench.run.machine import devices, measure_precisions

# Packages that only some commands need, and what they are for.
OPTIONAL = {
    "hydra-joblib-launcher": "sweeps over several processes",
    "hydra-submitit-launcher": "sweeps on SLURM",
}
ROOM = 1.0  # GiB that should be free in `out`
WARM_UP = 64  # samples before the self-test is timed; the first ones allocate memory
TIMED = 192  # samples of the self-test that are timed
# Errors that torch raises for a device that is busy, full or absent.
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
        print_report(report)
    return 1 if report["problems"] else 0


def examine_machine(
    device: str, out: Path, overrides: Sequence[str] = (), more: Sequence[Path] = ()
) -> dict[str, Any]:
    """Collect everything that the command reports.

    Args:
        device: of the self-test and of the test of precisions.
        out: folder that runs will be written to.
        overrides: words that choose the networks of the self-test.
        more: a user's own configuration folders.

    Returns:
        Plain values, as `--json` prints them. The key 'problems' has a list of sentences.
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
    for name, file in published().items():
        state = network_state(name, file)
        path = None if state.path is None else str(state.path)
        report["networks"][name] = {"state": state.text, "path": path}
        if state.problem:
            problems.append(state.problem)
    report["out"] = folder_state(out, problems)
    report["precision"] = {"device": device, "kinds": precision_results(device, report["devices"])}
    report["self_test"] = self_test([f"device={device}", *overrides], more, device, problems)
    report["problems"] = problems
    return report


def precision_results(device: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test every precision on a device.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'.
        found: `devices()` of the machine.

    Returns:
        One mapping per precision, with the fields of `MeasuredPrecision`; empty if the machine
        lacks the device.
    """
    name = device
    if device == "cuda":  # torch uses the first GPU
        name = "cuda:0"
    # The self-test reports a missing device, so this is no problem here.
    if name not in [item["name"] for item in found]:
        return []
    return [asdict(measured) for measured in measure_precisions(device)]


def version_of(name: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def folder_state(out: Path, problems: list[str]) -> dict[str, Any]:
    """Whether a folder can be written to, and how much space is free.

    Args:
        out: folder for runs, which need not exist.
        problems: a sentence about what is wrong is added.

    Returns:
        'path', 'writable', and 'free_gib' in GiB.
    """
    # If `out` does not exist yet, the nearest existing folder above it counts.
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
    """Sample, decode and score with the networks of a world, and measure the speed.

    Args:
        words: overrides that choose the networks and the device.
        more: a user's own configuration folders.
        device: the same as in `words`.
        problems: a sentence about an error that ended the test is added.

    Returns:
        'passed', and either 'samples_per_second' or the 'reason'.
    """
    try:
        networks = load_networks(compose_settings(words, more))
        compute_block(0, 0, WARM_UP, networks, device)
        began = time.perf_counter()
        compute_block(0, WARM_UP, WARM_UP + TIMED, networks, device)
    except DEVICE_ERRORS as error:
        problems.append(f"self-test: {error}")
        return {"passed": False, "reason": str(error)}
    seconds = time.perf_counter() - began
    return {"passed": True, "samples_per_second": round(TIMED / seconds, 1)}


# -- on the terminal -------------------------------------------------------------------------------
def print_report(report: dict[str, Any]) -> None:
    """Print a report, one line per item.

    Args:
        report: of `examine_machine`.
    """
    print_line("python", report["python"])
    for item in report["devices"]:
        print_line(
            item["name"], f"{item['what']}; {gib(item['memory'])} GiB, {gib(item['free'])} free"
        )
    if len(report["devices"]) == 1:
        # If torch does not see a GPU, it was often built without CUDA.
        built = "without it"
        if report["cuda_of_torch"]:
            built = f"for CUDA {report['cuda_of_torch']}"
        print_line("cuda", f"none: everything runs on the CPU (torch is built {built})")
    for measured in report["precision"]["kinds"]:
        name = f"{measured['name']} on {report['precision']['device']}"
        print_line(name, describe_precision(measured))
    print_line(
        "packages", ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    )
    for name, version in report["optional"].items():
        print_line(name, f"{version or 'not installed'} ({OPTIONAL[name]})")
    launchers = ["basic"]  # Hydra's own, one job after the other
    for name, is_there in report["launchers"].items():
        if is_there:
            launchers.append(name)
    print_line("launchers", ", ".join(launchers))
    networks = dict(report["networks"])
    print_line("networks", networks.pop("folder"))
    for name, item in networks.items():
        print_line(f"  {name}", item["state"])
    out = report["out"]
    state = "writable"
    if not out["writable"]:
        state = "NOT WRITABLE"
    print_line(f"out {out['path']}", f"{state}, {out['free_gib']} GiB free")
    print_line("self-test", describe_self_test(report["self_test"], report["precision"]["device"]))
    for problem in report["problems"]:
        print(f"problem: {problem}")


def describe_self_test(test: dict[str, Any], device: str) -> str:
    """Text about the self-test.

    Args:
        test: what `self_test` returned.
        device: that it ran on.
    """
    if not test["passed"]:
        return f"FAILED: {test['reason']}"
    return f"passed: {test['samples_per_second']:.0f} bank samples/s on {device}"


def describe_precision(measured: dict[str, Any]) -> str:
    """Text about a precision: whether it works, its error and its speed."""
    if not measured["matmul"]:
        return f"no: {measured['reason']}"
    state = "works"
    if not measured["works"]:
        state = f"WRONG ({measured['reason']})"
    speed = (
        f"{measured['matmul']:.2g} x fp32 in matrix products, {measured['conv']:.2g} x in "
        "convolutions"
    )
    if measured["name"] == "fp32":  # the others are compared with it
        speed = "the reference"
    return f"{state}, error {measured['error']:.0e}; {speed}"


def print_line(name: str, value: object) -> None:
    """Print a name and a value. The values of all lines are aligned."""
    print(f"{name:26} {value}")


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.1f}"
