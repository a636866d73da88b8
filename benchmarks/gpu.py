"""Runs all checks and measurements that need a GPU, and collects the results in one folder.

    make gpu                                                  # python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --tiny --out DIR    # a dry run of all parts on the CPU

There are six parts. Each has a table in SUMMARY.md with these columns:

    machine     rate of a large matrix product in each precision, TFLOP/s; its error; whether the
                device supports it; rate of a copy, GB/s
    tests       outcome of tests/test_gpu.py
    parity      for each method, fitted once and walked on the CPU and on the GPU: rows of both
                walks, largest difference of a logit in standard deviations (sigma), crossings of
                the boundary, and crossings that are the same on both
    decoding    images per second of a StyleGAN2 and a judge, by image size, precision and batch
                size; peak memory, MiB; rate of operations as a share of that of a large matrix
                product (the roofline)
    ffhq_pass   the same for walks of the engine: images decoded, images per second, peak memory
    world       the last line of the log of a training of a 64 x 64 world

A run takes less than 25 minutes on one GPU, and the dry run about a minute on two CPU cores.
Each part has its own process and its own time limit. A part that is done is not repeated, so the
same command resumes a run that was stopped. The folder receives PART.json for every part,
SUMMARY.md, and PART.jsonl, which gets each row as soon as it is measured. If a part is stopped at
its limit, the rows of this file are its result.

Exit codes: 0 if all parts are done, 1 if a part failed, 2 if there is no GPU or if the folder has
results of another device or of a dry run. docs/gpu.md reports results.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
# The part `parity` uses the small networks of the tests.
sys.path.insert(0, str(ROOT))

from editbench.bank.starts import Starts  # noqa: E402
from editbench.base.batches import fitting_batch, is_out_of_memory  # noqa: E402
from editbench.base.compute_options import is_gpu  # noqa: E402
from editbench.base.conf import group_options  # noqa: E402
from editbench.base.devices import device_kind, forget_peak  # noqa: E402
from editbench.base.errors import EditbenchError  # noqa: E402
from editbench.base.files import write_atomic, write_json  # noqa: E402
from editbench.base.precision import use_precision  # noqa: E402
from editbench.base.spaces import Codes, Space  # noqa: E402
from editbench.conformance.testbeds import KINDS, ColourScorer  # noqa: E402
from editbench.networks.stylegan2.generator import StyleGAN2Generator  # noqa: E402
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config  # noqa: E402
from editbench.run.environment import peak_memory_mb  # noqa: E402
from editbench.run.machine import fastest, measure_precisions  # noqa: E402
from editbench.walk.editor import Editor, FitData, FitReport, Walk  # noqa: E402
from editbench.walk.engine import WalkInputs, walk_starts  # noqa: E402
from editbench.walk.spec import EngineSpec  # noqa: E402

DEVICE_OF_TESTS = "EDITBENCH_TEST_DEVICE"  # the variable that tests/test_gpu.py reads
MINUTES = 60  # seconds
CANNOT_BEGIN = 2  # exit code
LARGEST_BATCH = 64  # images, of the part `decoding`
SAMPLES_OF_THE_JUDGE = 8  # images that the scale of the judge's logits is computed from
SECONDS_OF_A_BATCH = 5.0  # a batch that takes longer is measured only once
WITHOUT_PARITY = ("true_factor",)  # its world is the renderer, which has no weights
# One method for each kind of walk: in W, in W+, in S, of weights, along a flow.
TINY_PARITY = ("random", "sefa", "random_channel", "navigan_svd", "neural_ode_linear")
# Columns of SUMMARY.md that say what a row is about. They come first, in this order.
DESCRIPTIVE = ("method", "tests", "side, pixels", "precision", "batch")


@dataclass(frozen=True)
class Setting:
    """The options that every part receives.

    Args:
        device: that is measured.
        tiny: whether this is a dry run, with the smallest sizes that run the same code.
        out: folder of the results.
    """

    device: str
    tiny: bool
    out: Path


# -- parts -----------------------------------------------------------------------------------------
# Each part gives the rows of its table in SUMMARY.md, the fastest first: column -> value.
def machine(setting: Setting) -> list[dict[str, Any]]:
    """Measure the peak rates of matrix products and of the memory."""
    rows = []
    for measured in measure_precisions(setting.device, 64 if setting.tiny else 0):
        row = {"precision": measured.name, "works": measured.works, "error": measured.error}
        if measured.works:
            row["TFLOP/s"] = peak_flops(setting, measured.name) / 1e12
        rows.append(row | {"reason": measured.reason})
    values = torch.ones(2**16 if setting.tiny else 2**28, device=setting.device)
    seconds = fastest(lambda: values.clone(), setting.device)
    # A copy reads and writes every byte once.
    rate = 2 * values.nbytes / seconds / 1e9
    return [*rows, {"precision": "memory", "works": True, "GB/s": rate}]


def tests(setting: Setting) -> list[dict[str, Any]]:
    """Run the tests that need a device.

    Raises:
        EditbenchError: a test failed; the message is the end of pytest's output.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n", "0", "tests/test_gpu.py"]
    environ = os.environ | {DEVICE_OF_TESTS: setting.device}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, encoding="utf-8", errors="replace"
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    if done.returncode:
        raise EditbenchError("\n".join(lines[-20:]))
    return [{"tests": "tests/test_gpu.py", "outcome": lines[-1].strip("= ")}]


def parity(setting: Setting) -> Iterator[dict[str, Any]]:
    """Compare the walks of every method on the CPU and on the device.

    Raises:
        EditbenchError: a job failed.
    """
    from editbench.run.record import Record
    from editbench.walk.trajectory import Trajectories
    from tests.by_config import run_job
    from tests.tiny_pictures import tiny_config

    names = [name for name in group_options("method") if name not in WITHOUT_PARITY]
    if setting.tiny:
        names = list(TINY_PARITY)
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            walks = []
            for device in ("cpu", setting.device):
                config = tiny_config(Path(place), name, f"device={device}")
                # Both jobs share the cache with the fit, so only their walks can differ.
                config.out = f"{place}/{'here' if device == 'cpu' else 'there'}"
                outcome = run_job(config)
                if outcome.status != "done":
                    raise EditbenchError(f"{name} on {device}: {outcome.reason}")
                record = Path(config.out) / outcome.run_id
                walks.append(Trajectories.load(record / Record.TRAJECTORY))
            on_cpu, on_device = walks
            yield {"method": name} | compared(on_cpu, on_device)


def decoding(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure a StyleGAN2 and a judge, by size, precision and batch, until memory runs out."""
    for resolution in sides(setting):
        for precision in precisions(setting):
            use_precision(precision, setting.device)
            generator, judge = networks(resolution, setting.device, precision)
            flops = flops_of(generator)
            peak = peak_flops(setting, precision)
            batch = 1
            while batch <= (2 if setting.tiny else LARGEST_BATCH):
                try:
                    rate, memory = images_per_second(generator, judge, batch, setting.device)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    break
                yield {
                    "side, pixels": resolution,
                    "precision": precision,
                    "batch": batch,
                    "images/s": rate,
                    "peak MiB": memory,
                    "share of the roofline": rate * flops / peak,
                }
                batch *= 4


def ffhq_pass(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure walks of the engine up to the size of FFHQ, in batches that fit the free memory."""
    for resolution in sides(setting):
        for precision in precisions(setting):
            use_precision(precision, setting.device)
            yield engine_pass(setting, resolution, precision)


def world(setting: Setting) -> list[dict[str, Any]]:
    """Train a world of 64 x 64 pixels, or resume its training from the last checkpoint.

    Raises:
        EditbenchError: the command failed.
    """
    from editbench.cli import main as editbench

    folder = setting.out / "world"
    words = ["world", "train-gan", "--device", setting.device, "--out", str(folder)]
    if setting.tiny:
        words += ["--resolution", "8", "--channels", "8", "8", "--kimg", "0.032", "--batch", "8"]
        words += ["--checkpoint-kimg", "0.016", "--mapping-layers", "2"]
    else:
        words += ["--resolution", "64", "--batch", "64", "--checkpoint-kimg", "10"]
    code = editbench(words)
    if code:
        raise EditbenchError(f"editbench {' '.join(words)} ended with {code}")
    return last_log_row(folder)


# Name of a part -> its function, and its time limit on a GPU in seconds: 24 minutes together. The
# training comes last, because it can use any time that is left.
PARTS: dict[str, tuple[Callable[[Setting], Iterable[dict[str, Any]]], int]] = {
    "machine": (machine, 1 * MINUTES),
    "tests": (tests, 3 * MINUTES),
    "parity": (parity, 5 * MINUTES),
    "decoding": (decoding, 4 * MINUTES),
    "ffhq_pass": (ffhq_pass, 4 * MINUTES),
    "world": (world, 7 * MINUTES),
}


# -- helpers of the parts --------------------------------------------------------------------------
class Straight(Editor):
    """Adds the same vector at every step, so that a walk costs only what the engine costs."""

    def fit(self, data: FitData) -> FitReport:
        return FitReport()

    def step(self, walk: Walk) -> Tensor:
        return walk.codes + 0.01


def networks(resolution: int, device: str, precision: str) -> tuple[StyleGAN2Generator, Any]:
    """Make a StyleGAN2 with random weights, and a judge that needs little time.

    Args:
        resolution: of the images, pixels. From 256 pixels on the generator is config-f.
        device: of the networks.
        precision: of both networks.
    """
    torch.manual_seed(0)
    config = StyleGAN2Config.config_f(resolution)
    if resolution < 256:
        channels = (16,) * (resolution.bit_length() - 2)
        config = StyleGAN2Config(resolution, channels, 16, 16, mapping_layers=2)
    generator = StyleGAN2Generator(StyleGAN2(config)).eval().requires_grad_(False)
    # The judge decodes samples to scale its logits. On a CPU this would take minutes.
    generator.to(device)
    generator.precision = precision
    judge = ColourScorer(KINDS["binary"], generator, 2, SAMPLES_OF_THE_JUDGE)
    judge.to(device)
    judge.precision = precision
    return generator, judge


def sides(setting: Setting) -> tuple[int, int]:
    """Image sizes that are measured, in pixels. The limit of a part may cut off the larger one."""
    return (16, 32) if setting.tiny else (256, 1024)


def precisions(setting: Setting) -> list[str]:
    """Precisions that are compared, the fastest first. Only GPUs have TF32."""
    return ["bf16", "tf32", "fp32"] if is_gpu(setting.device) else ["bf16", "fp32"]


def engine_pass(setting: Setting, resolution: int, precision: str) -> dict[str, Any]:
    """Walk a straight editor through the engine.

    Args:
        setting: of the part.
        resolution: of the images, pixels.
        precision: of the networks.

    Returns:
        The row of the table.
    """
    count = 6 if setting.tiny else 128
    steps = 2 if setting.tiny else 8
    generator, judge = networks(resolution, setting.device, precision)
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0))

    def score(codes: Tensor) -> Tensor:
        return judge(generator.decode(Codes(Space.W, codes)))

    with torch.no_grad():
        w = generator.map(z.to(setting.device))
        batch = fitting_batch(partial(score, w[:1]), setting.device)
        logits = torch.cat([score(part) for part in w.split(batch)])
    source = judge.attributes.labels(logits, "a").cpu().numpy()
    starts = Starts(np.arange(count), source, 1 - source, 1.0)
    forget_peak(setting.device)
    result = walk_starts(
        WalkInputs(Straight(), generator, "a", starts, w, logits),
        judge,
        np.ones(judge.attributes.width),
        EngineSpec(steps, steps, batch, 4),
    )
    return {
        "side, pixels": resolution,
        "precision": precision,
        "batch": batch,
        "images": result.decoded,
        "images/s": result.decoded / result.seconds,
        "peak MiB": peak_memory_mb(setting.device),
    }


@torch.no_grad()
def images_per_second(
    generator: StyleGAN2Generator, judge: Any, batch: int, device: str
) -> tuple[float, float]:
    """Measure decoding and scoring.

    Args:
        generator: decodes W.
        judge: scores the images.
        batch: images that are computed together.
        device: of the networks.

    Returns:
        Images per second of wall time, and the peak memory in MiB.
    """
    w = torch.zeros(batch, generator.w_dim, device=device)
    forget_peak(device)
    seconds = fastest(
        lambda: judge(generator.decode(Codes(Space.W, w))), device, longest=SECONDS_OF_A_BATCH
    )
    return batch / seconds, peak_memory_mb(device)


@torch.no_grad()
def flops_of(generator: StyleGAN2Generator) -> float:
    """Count the floating-point operations of an image; multiply and add count as two."""
    # On the meta device, tensors have shapes but no data, so nothing is computed.
    shapes = copy.deepcopy(generator).to("meta")
    shapes.precision = "fp32"  # the meta device has no other precision
    w = torch.zeros(1, generator.w_dim, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes.decode(Codes(Space.W, w))
    return float(counter.get_total_flops())


def peak_flops(setting: Setting, precision: str) -> float:
    """Measure the roofline: the operations per second of a large matrix product in a precision."""
    use_precision(precision if precision != "fp16" else "fp32", setting.device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = 8192 if is_gpu(setting.device) else 512
    if setting.tiny:
        side = 64
    a = torch.ones(side, side, dtype=dtype, device=setting.device)
    return 2 * side**3 / fastest(lambda: a @ a, setting.device)


def compared(here: Any, there: Any) -> dict[str, Any]:
    """Compare two walks from the same starts, at the steps that both have made.

    Args:
        here: trajectories on the CPU.
        there: trajectories on the device.

    Returns:
        The columns of the table: steps that both have made, the largest difference of a logit in
        its standard deviations over the walk on the CPU, the crossings on the CPU, and those at
        which the walk on the device crosses, too.
    """
    columns = [name for name in here.table if name.startswith("logit:")]
    both = here.table.merge(there.table, on=["start", "step"], suffixes=("", "_there"))
    gaps = []
    for name in columns:
        # A constant logit has no spread.
        spread = max(float(here.table[name].std()), 1e-9)
        gaps.append(float((both[name] - both[f"{name}_there"]).abs().max()) / spread)
    crossings_here = here.table.loc[here.table["stopped"], ["start", "step"]]
    crossings_there = there.table.loc[there.table["stopped"], ["start", "step"]]
    same = crossings_here.merge(crossings_there, on=["start", "step"])
    return {
        "rows": len(both),
        "largest gap, sigma": max(gaps),
        "crossings": len(crossings_here),
        "the same": len(same),
    }


def last_log_row(folder: Path) -> list[dict[str, Any]]:
    """The numbers in the last line of a training's log; an empty list if it has none yet."""
    rows = []
    for row in read_rows(folder / "log.jsonl")[-1:]:
        rows.append({key: value for key, value in row.items() if isinstance(value, int | float)})
    return rows


# -- running the parts -----------------------------------------------------------------------------
def run_part(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part in this process, and write its files.

    Args:
        name: of the part.
        setting: of the part.

    Returns:
        status ('done' or 'failed'), reason of a failure, rows, seconds, device, and whether it was a
        dry run.
    """
    began = time.time()
    found: dict[str, Any] = {"status": "done", "reason": "", "rows": []}
    # An earlier run that was stopped may have left rows.
    rows_file(name, setting).unlink(missing_ok=True)
    function = PARTS[name][0]
    try:
        for row in function(setting):
            found["rows"].append(row)
            print(json.dumps(row), flush=True)
            with rows_file(name, setting).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    except Exception as error:
        # A part that fails keeps its rows, and does not stop the other parts.
        found["status"] = "failed"
        found["reason"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    found["seconds"] = round(time.time() - began, 1)
    found |= made_on(setting)
    write_json(setting.out / f"{name}.json", found)
    return found


def run_apart(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part in its own process, which is stopped at the time limit of the part.

    Args:
        name: of the part.
        setting: of the part.

    Returns:
        What `run_part` returns. A part that was stopped is done if it has rows.
    """
    words = ["--device", setting.device, "--out", str(setting.out), "--part", name]
    if setting.tiny:
        words.append("--tiny")
    limit = PARTS[name][1]
    # The files of an earlier run must not count as the result of this one.
    (setting.out / f"{name}.json").unlink(missing_ok=True)
    rows_file(name, setting).unlink(missing_ok=True)
    began = time.time()
    cut = False
    command = [sys.executable, __file__, *words]
    try:
        code = subprocess.run(command, cwd=ROOT, timeout=limit).returncode
        reason = f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        cut = True
        reason = f"cut at its limit of {limit} s"
    found = read_part(name, setting)
    if found is None:
        # The process could not write its result. The rows that it measured before are the result;
        # for a training it is the last line of its log.
        rows = read_rows(rows_file(name, setting)) or last_log_row(setting.out / name)
        found = {"status": "done" if cut and rows else "failed", "reason": reason, "rows": rows}
        found["seconds"] = round(time.time() - began, 1)
        found |= made_on(setting)
        write_json(setting.out / f"{name}.json", found)
    return found


def rows_file(name: str, setting: Setting) -> Path:
    """The file to which a part appends its rows as soon as they are measured."""
    return setting.out / f"{name}.jsonl"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; an empty list if there is no file."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        # A process that was killed may have written half of its last line.
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def made_on(setting: Setting) -> dict[str, Any]:
    """What the results of a folder have in common: the device, and whether it is a dry run."""
    return {"device": device_kind(setting.device), "tiny": setting.tiny}


def other_results(setting: Setting) -> str:
    """Text about results of another device or size in the folder, which must not be mixed; or ''."""
    for name in PARTS:
        earlier = read_part(name, setting)
        if earlier is None:
            continue
        # Results of earlier versions do not say whether they are of a dry run.
        made = {key: earlier.get(key, value) for key, value in made_on(setting).items()}
        if made != made_on(setting):
            return f"a {'dry' if made['tiny'] else 'full'} run on {made['device']}"
    return ""


def read_part(name: str, setting: Setting) -> dict[str, Any] | None:
    """Read the result of a part; None if there is none."""
    file = setting.out / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def column_order(name: str) -> int:
    """Position of a column: those that say what a row is about come first."""
    if name in DESCRIPTIVE:
        return DESCRIPTIVE.index(name)
    return len(DESCRIPTIVE)


def summary(setting: Setting, found: dict[str, dict[str, Any]]) -> str:
    """Write SUMMARY.md, with one table per part.

    Args:
        setting: of the run.
        found: name of a part -> what `run_part` returns.

    Returns:
        The text in Markdown.
    """
    lines = [f"# {device_kind(setting.device)}", ""]
    lines.append(f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    for name, part in found.items():
        lines += ["", f"## {name}: {part['status']}, {part.get('seconds', 0):g} s", ""]
        if part["reason"]:
            lines += [part["reason"], ""]
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        # The order of other columns stays the same.
        columns.sort(key=column_order)
        if columns:
            lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in part["rows"]:
            lines.append("| " + " | ".join(shown(row.get(key, "")) for key in columns) + " |")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """Format a value of a table; a number has four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/gpu"),
        help="folder of the results (default: %(default)s)",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a dry run at the smallest sizes (default: full sizes)"
    )
    parser.add_argument(
        "--part",
        choices=PARTS,
        action="append",
        help="run only this part, in this process and without a limit (default: all parts)",
    )
    args = parser.parse_args(argv)
    if is_gpu(args.device) and not torch.cuda.is_available():
        print(f"--device {args.device}: torch sees no CUDA device", file=sys.stderr)
        return CANNOT_BEGIN
    setting = Setting(args.device, args.tiny, args.out.absolute())
    other = other_results(setting)
    if other:
        print(f"--out {args.out} has results of {other}: give another folder", file=sys.stderr)
        return CANNOT_BEGIN
    setting.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        results = [run_part(name, setting) for name in args.part]
        return int(any(part["status"] != "done" for part in results))
    found: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        earlier = read_part(name, setting)
        if earlier is not None and earlier["status"] == "done":
            print(f"{name}: done already", flush=True)
            found[name] = earlier
        else:
            print(f"{name}: begun", flush=True)
            found[name] = run_apart(name, setting)
        # Written after every part, so that a run that is stopped leaves a summary.
        write_atomic(setting.out / "SUMMARY.md", summary(setting, found))
    print(summary(setting, found), end="")
    return int(any(part["status"] != "done" for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
