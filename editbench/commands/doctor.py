"""`editbench doctor`: what this machine can do, and whether the embedded world works on it."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from importlib import metadata
from pathlib import Path

from editbench import records
from editbench.bank_build import compute_block
from editbench.configs import compose_config
from editbench.errors import EditbenchError
from editbench.models import load_world

OPTIONAL = {"hydra-joblib-launcher": "sweeps over several processes", "hydra-submitit-launcher": "sweeps on SLURM",
            "torchvision": "not needed", "torch-fidelity": "not needed"}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("editbench doctor", description=__doc__,
                                     epilog="example:\n  editbench doctor --device cuda --out runs",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="device of the self-test")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder that runs will be written to")
    args = parser.parse_args(argv)
    facts = records.environment()
    line("python", facts["python"])
    line("processor", f"{facts['processor']}, {os.cpu_count()} cores, {facts['threads']} torch threads")
    line("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB")
    line("cuda", facts["cuda"] or "none: everything runs on the CPU")
    for name, version in facts["packages"].items():
        line(name, version)
    for name, what in OPTIONAL.items():
        line(name, f"{installed(name)} ({what})")
    problems = [check_out(args.out), self_test(args.device)]
    return 1 if any(problems) else 0


def line(name: str, value: object) -> None:
    print(f"{name:26} {value}")


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def check_out(out: Path) -> bool:
    """Print whether `out` can be written and what is free there; True where there is a problem."""
    folder = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    line(f"out {out}", f"{'writable' if writable else 'NOT WRITABLE: set out=DIR'}, {free:.1f} GiB free")
    return not writable or free < 1


def self_test(device: str) -> bool:
    """Sample, decode, score: the embedded world end to end; True where it fails."""
    try:
        world = load_world(compose_config([f"device={device}"]))
        models = (world.generator, world.teacher, world.judge)
        compute_block(0, 0, 64, models, device)
        began = time.perf_counter()
        compute_block(0, 64, 256, models, device)
    except EditbenchError as error:
        line("self-test", f"FAILED: {error}")
        return True
    line("self-test", f"passed: {192 / (time.perf_counter() - began):.0f} bank samples/s on {device}")
    return False
