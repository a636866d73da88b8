"""`editbench doctor`: what this machine can do, and whether the embedded world works on it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from editbench.bank.build import compute_block
from editbench.base.errors import BadFile, EditbenchError
from editbench.networks.registry import find, folder, pin, published
from editbench.run import record as records
from editbench.run.compose import compose_settings
from editbench.run.launch import EXTRAS, installed
from editbench.run.loading import load_networks
from editbench.run.machine import devices, kinds

OPTIONAL = {
    "hydra-joblib-launcher": "sweeps over several processes",
    "hydra-submitit-launcher": "sweeps on SLURM",
    "torchvision": "not needed",
    "torch-fidelity": "not needed",
}
ROOM = 1.0  # GiB that `out` should have


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "editbench doctor",
        description=__doc__,
        epilog="example:\n  editbench doctor --device cuda --out runs\n"
        "Exit code 1 where something does not work.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--device", default="cpu", help="device of the self-test and of the trial of precisions"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder that runs will be written to"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    args = parser.parse_args(argv)
    report = look(args.device, args.out)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    return 1 if report["problems"] else 0


def look(device: str, out: Path) -> dict[str, Any]:
    """Everything that is found, as plain values; `problems` are sentences."""
    facts = records.environment()
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
    report["networks"] = {
        "folder": str(folder()),
        **{name: network(name, problems) for name in published()},
    }
    report["out"] = room(out, problems)
    usable = (f"{device}:0" if device == "cuda" else device) in [
        item["name"] for item in report["devices"]
    ]
    report["precision"] = {
        "device": device,
        "kinds": [asdict(kind) for kind in kinds(device)] if usable else [],
    }
    report["self_test"] = self_test(device, problems)
    return report | {"problems": problems}


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def network(name: str, problems: list[str]) -> dict[str, Any]:
    """Where the file of a published network lies, and whether it has the published content."""
    file = published()[name]
    try:
        found = find(file)
    except BadFile as error:
        problems.append(str(error))
        return {"state": "wrong checksum", "path": str(folder() / file.name)}
    return (
        {
            "state": f"here, {'checksum right' if pin(file) else 'no checksum published'}",
            "path": str(found.path),
        }
        if found
        else {"state": f"not here: editbench fetch {name}", "path": None}
    )


def room(out: Path, problems: list[str]) -> dict[str, Any]:
    """Whether `out` can be written, and what is free there, in GiB."""
    there = next(path for path in (out, *out.absolute().parents) if os.path.exists(path))
    free, writable = (
        shutil.disk_usage(there).free / 2**30,
        there.is_dir() and os.access(there, os.W_OK),
    )
    if not writable:
        problems.append(f"{out} cannot be written: set out=DIR")
    elif free < ROOM:
        problems.append(
            f"{out} has {free:.2f} GiB free, less than {ROOM:g}: set out=DIR and cache=DIR on "
            "another disk"
        )
    return {"path": str(out), "writable": writable, "free_gib": round(free, 2)}


def self_test(device: str, problems: list[str]) -> dict[str, Any]:
    """Sample, decode, score: the embedded world end to end."""
    try:
        networks = load_networks(compose_settings([f"device={device}"]))
        models = (networks.generator, networks.teacher, networks.judge)
        compute_block(0, 0, 64, models, device)
        began = time.perf_counter()
        compute_block(0, 64, 256, models, device)
    except (
        EditbenchError,
        RuntimeError,
        AssertionError,
    ) as error:  # a device that is busy, full or not there
        problems.append(f"self-test: {error}")
        return {"passed": False, "reason": str(error)}
    return {"passed": True, "samples_per_second": round(192 / (time.perf_counter() - began), 1)}


# -- on the terminal -----------------------------------------------------------------------------
def show(report: dict[str, Any]) -> None:
    line("python", report["python"])
    for item in report["devices"]:
        line(item["name"], f"{item['what']}; {gib(item['memory'])} GiB, {gib(item['free'])} free")
    if len(report["devices"]) == 1:
        built = f"for CUDA {report['cuda_of_torch']}" if report["cuda_of_torch"] else "without it"
        line("cuda", f"none: everything runs on the CPU (torch is built {built})")
    for kind in report["precision"]["kinds"]:
        line(f"{kind['name']} on {report['precision']['device']}", precision(kind))
    line("packages", ", ".join(f"{name} {version}" for name, version in report["packages"].items()))
    for name, version in report["optional"].items():
        line(name, f"{version or 'not installed'} ({OPTIONAL[name]})")
    line(
        "launchers",
        ", ".join(["basic", *(name for name, there in report["launchers"].items() if there)]),
    )
    networks = dict(report["networks"])
    line("networks", networks.pop("folder"))
    for name, item in networks.items():
        line(f"  {name}", item["state"])
    line(
        f"out {report['out']['path']}",
        f"{'writable' if report['out']['writable'] else 'NOT WRITABLE'}, "
        f"{report['out']['free_gib']} GiB free",
    )
    test = report["self_test"]
    line(
        "self-test",
        f"passed: {test['samples_per_second']:.0f} bank samples/s on "
        f"{report['precision']['device']}"
        if test["passed"]
        else f"FAILED: {test['reason']}",
    )
    for problem in report["problems"]:
        print(f"problem: {problem}")


def precision(kind: dict[str, Any]) -> str:
    if not kind["matmul"]:
        return f"no: {kind['reason']}"
    state = "works" if kind["works"] else f"WRONG ({kind['reason']})"
    speed = f"{kind['matmul']:.2g} x fp32 in products, {kind['conv']:.2g} x in convolutions"
    speed = "the measure" if kind["name"] == "fp32" else speed
    return f"{state}, error {kind['error']:.0e}; {speed}"


def line(name: str, value: object) -> None:
    print(f"{name:26} {value}")


def gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
