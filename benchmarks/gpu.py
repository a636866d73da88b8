"""Everything that wants a GPU once, in one folder of results: tests, parity with the CPU, rooflines, FFHQ size, training.

    make gpu                                                  # or: python benchmarks/gpu.py --out runs/gpu
    python benchmarks/gpu.py --device cpu --tiny --out DIR    # a dry run of every part, without a GPU

Under 25 minutes on one GPU. Each part has a process and a time limit of its own; a part that is done is not repeated, so
that the same command goes on where it was stopped. DIR gets a JSON file a part and SUMMARY.md, and each row as soon as it
is measured in PART.jsonl, which is what a part leaves that is cut. Exit codes: 0, 1 where a part failed, 2 without the GPU
that was asked for.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the tests' world, which parity runs on

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
from editbench.run.machine import fastest, kinds  # noqa: E402
from editbench.run.record import peak_memory_mb  # noqa: E402
from editbench.walk.editor import Editor, FitData, FitReport, Walk  # noqa: E402
from editbench.walk.engine import walk_starts  # noqa: E402
from editbench.walk.spec import EngineSpec  # noqa: E402

DEVICE_OF_TESTS = "EDITBENCH_TEST_DEVICE"  # what tests/test_gpu.py reads
MINUTES = 60  # seconds
NO_GPU = 2
LARGEST_BATCH = 64
SAMPLES_OF_THE_JUDGE = 8  # that its logits are scaled by
SECONDS_OF_A_BATCH = 5.0  # of timing it, beyond which it is not repeated
WITHOUT_PARITY = ("true_factor",)  # its world is the renderer, which has no weights


@dataclass(frozen=True)
class Setting:
    """What a part is told.

    Args:
        device: to be measured.
        tiny: a dry run: the smallest sizes that go the same way.
        out: folder of the results.
    """

    device: str
    tiny: bool
    out: Path


# -- parts: each gives what SUMMARY.md shows, row by row, the cheap ones first -----------------------
def machine(setting: Setting) -> list[dict[str, Any]]:
    """Peak rates, which the rooflines stand for."""
    rows = []
    for kind in kinds(setting.device, 64 if setting.tiny else 0):
        row = {"numbers": kind.name, "works": kind.works, "error": kind.error}
        if kind.works:
            row["TFLOP/s"] = peak_flops(setting, kind.name) / 1e12
        rows.append(row | {"reason": kind.reason})
    values = torch.ones(2**16 if setting.tiny else 2**28, device=setting.device)
    # Every number is read and written once.
    spent = fastest(lambda: values.clone(), setting.device)
    return [*rows, {"numbers": "memory", "works": True, "GB/s": 2 * values.nbytes / spent / 1e9}]


def tests(setting: Setting) -> list[dict[str, Any]]:
    """The tests that need a device."""
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
    """Every method: fitted on the CPU, walked on the CPU and on the device; logits in sigmas."""
    from editbench.run.record import Record
    from editbench.walk.trajectory import Trajectories
    from tests.by_config import run_job
    from tests.tiny_pictures import tiny_config

    names = [name for name in group_options("method") if name not in WITHOUT_PARITY]
    # One of each kind of walk: in W, in W+, in S, of weights, along a flow.
    if setting.tiny:
        names = ["random", "sefa", "random_channel", "navigan_svd", "neural_ode_linear"]
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            tables = []
            for device in ("cpu", setting.device):
                config = tiny_config(Path(place), name, f"device={device}")
                # The fits lie in the cache that both share: walks are compared, and no fits.
                config.out = f"{place}/{'here' if device == 'cpu' else 'there'}"
                outcome = run_job(config)
                if outcome.status != "done":
                    raise EditbenchError(f"{name} on {device}: {outcome.reason}")
                record = Path(config.out) / outcome.run_id
                tables.append(Trajectories.load(record / Record.TRAJECTORY))
            yield {"method": name} | compared(*tables)


def decoding(setting: Setting) -> Iterator[dict[str, Any]]:
    """Pictures a second of a StyleGAN2 and a judge, by numbers and batch, beside the roofline."""
    for resolution in sides(setting):
        for precision in precisions(setting):
            use_precision(precision, setting.device)
            generator, judge = networks(resolution, setting.device, precision)
            cost = flops_of(generator)
            peak = peak_flops(setting, precision)
            batch = 1
            while batch <= (2 if setting.tiny else LARGEST_BATCH):
                try:
                    rate, memory = pictures_a_second(generator, judge, batch, setting.device)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    break
                yield {
                    "side": resolution,
                    "numbers": precision,
                    "batch": batch,
                    "pictures/s": rate,
                    "peak MiB": memory,
                    "of the roofline": rate * cost / peak,
                }
                batch *= 4


def ffhq_pass(setting: Setting) -> Iterator[dict[str, Any]]:
    """The engine itself, up to FFHQ's size: walks of a straight editor, batches by the free memory."""
    for resolution in sides(setting):
        for precision in precisions(setting):
            use_precision(precision, setting.device)
            yield engine_pass(setting, resolution, precision)


def world(setting: Setting) -> list[dict[str, Any]]:
    """The training of a 64 x 64 world; it goes on from its checkpoint."""
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
    return logged(folder)


# Name -> what it does, and its limit in seconds on a GPU: 24 minutes in all. The training is last,
# since it makes use of whatever time there is.
PARTS: dict[str, tuple[Callable[[Setting], Iterable[dict[str, Any]]], int]] = {
    "machine": (machine, 1 * MINUTES),
    "tests": (tests, 3 * MINUTES),
    "parity": (parity, 5 * MINUTES),
    "decoding": (decoding, 4 * MINUTES),
    "ffhq_pass": (ffhq_pass, 4 * MINUTES),
    "world": (world, 7 * MINUTES),
}


# -- what parts share --------------------------------------------------------------------------------
class Straight(Editor):
    """Adds the same vector at every step: a walk costs what the engine costs."""

    def fit(self, data: FitData) -> FitReport:
        return FitReport()

    def step(self, walk: Walk) -> Tensor:
        return walk.codes + 0.01


def networks(resolution: int, device: str, precision: str) -> tuple[StyleGAN2Generator, Any]:
    """A StyleGAN2 of random weights, config-f from 256 pixels on, and a judge that costs little."""
    torch.manual_seed(0)
    config = StyleGAN2Config.config_f(resolution)
    if resolution < 256:
        widths = (16,) * (resolution.bit_length() - 2)
        config = StyleGAN2Config(resolution, widths, 16, 16, mapping_layers=2)
    generator = StyleGAN2Generator(StyleGAN2(config)).eval().requires_grad_(False)
    # The judge is scaled by samples of the generator, which a CPU would take minutes to decode.
    generator.to(device)
    generator.precision = precision
    judge = ColourScorer(KINDS["binary"], generator, 2, SAMPLES_OF_THE_JUDGE)
    judge.to(device)
    judge.precision = precision
    return generator, judge


def sides(setting: Setting) -> tuple[int, int]:
    """Pixels a side of the pictures that are timed; the large ones may be cut by the limit."""
    return (16, 32) if setting.tiny else (256, 1024)


def precisions(setting: Setting) -> list[str]:
    """The numbers that are compared, the fastest first; TF32 is of GPUs."""
    return ["bf16", "tf32", "fp32"] if is_gpu(setting.device) else ["bf16", "fp32"]


def engine_pass(setting: Setting, resolution: int, precision: str) -> dict[str, Any]:
    """Walks of a straight editor from one bank, and their pictures a second."""
    count, steps = (6, 2) if setting.tiny else (128, 8)
    generator, judge = networks(resolution, setting.device, precision)
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0))

    def score(codes: Tensor) -> Tensor:
        return judge(generator.decode(Codes(Space.W, codes)))

    with torch.no_grad():
        w = generator.map(z.to(setting.device))
        batch = fitting_batch(partial(score, w[:1]), setting.device)
        parts = [score(w[k : k + batch]) for k in range(0, count, batch)]
    logits = torch.cat(parts)
    source = judge.attributes.labels(logits, "a").cpu().numpy()
    starts = Starts(np.arange(count), source, 1 - source, 1.0)
    forget_peak(setting.device)
    result = walk_starts(
        Straight(),
        generator,
        judge,
        "a",
        starts,
        w,
        logits,
        np.ones(judge.attributes.width),
        EngineSpec(steps, steps, batch, 4),
    )
    return {
        "side": resolution,
        "numbers": precision,
        "batch": batch,
        "pictures": result.decoded,
        "pictures/s": result.decoded / result.seconds,
        "peak MiB": peak_memory_mb(setting.device),
    }


@torch.no_grad()
def pictures_a_second(
    generator: StyleGAN2Generator, judge: Any, batch: int, device: str
) -> tuple[float, float]:
    """Rate of decoding and judging, and the peak of memory in MiB."""
    w = torch.zeros(batch, generator.w_dim, device=device)
    forget_peak(device)
    spent = fastest(
        lambda: judge(generator.decode(Codes(Space.W, w))), device, longest=SECONDS_OF_A_BATCH
    )
    return batch / spent, peak_memory_mb(device)


@torch.no_grad()
def flops_of(generator: StyleGAN2Generator) -> float:
    """Floating-point operations of a picture, a multiplication and an addition counted as two."""
    # Shapes alone are counted: nothing is computed.
    shapes = copy.deepcopy(generator).to("meta")
    shapes.precision = "fp32"  # that device has no other
    w = torch.zeros(1, generator.w_dim, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes.decode(Codes(Space.W, w))
    return float(counter.get_total_flops())


def peak_flops(setting: Setting, precision: str) -> float:
    """Operations a second of a large matrix product in these numbers: the roof."""
    use_precision(precision if precision != "fp16" else "fp32", setting.device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = 8192 if is_gpu(setting.device) else 512
    if setting.tiny:
        side = 64
    a = torch.ones(side, side, dtype=dtype, device=setting.device)
    return 2 * side**3 / fastest(lambda: a @ a, setting.device)


def compared(here: Any, there: Any) -> dict[str, Any]:
    """How far two walks of the same starts are apart, where both have made the step."""
    columns = [name for name in here.table if name.startswith("logit:")]
    both = here.table.merge(there.table, on=["start", "step"], suffixes=("", "_there"))
    gaps = []
    for name in columns:
        spread = max(float(here.table[name].std()), 1e-9)
        gaps.append(float((both[name] - both[f"{name}_there"]).abs().max()) / spread)
    stops = [table.table.loc[table.table["stopped"], ["start", "step"]] for table in (here, there)]
    same = stops[0].merge(stops[1], on=["start", "step"])
    return {
        "rows": len(both),
        "largest gap, sigma": max(gaps),
        "crossings": len(stops[0]),
        "the same": len(same),
    }


def logged(folder: Path) -> list[dict[str, Any]]:
    """The last line of a training's log; nothing where it has none yet."""
    return [
        {key: value for key, value in row.items() if isinstance(value, int | float)}
        for row in read_rows(folder / "log.jsonl")[-1:]
    ]


# -- running them ------------------------------------------------------------------------------------
def run_part(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part in this process, and leave its file."""
    began = time.time()
    found: dict[str, Any] = {"status": "done", "reason": "", "rows": []}
    # Rows of an earlier try, which was cut.
    rows_file(name, setting).unlink(missing_ok=True)
    try:
        for row in PARTS[name][0](setting):
            found["rows"].append(row)
            print(json.dumps(row), flush=True)
            with rows_file(name, setting).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    except Exception as error:
        # One part that fails must not take the others' results with it, nor its own rows.
        found |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    found |= {"seconds": round(time.time() - began, 1), "device": device_kind(setting.device)}
    write_json(setting.out / f"{name}.json", found)
    return found


def run_apart(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part in a process of its own, which ends at its limit."""
    words = ["--device", setting.device, "--out", str(setting.out), "--part", name]
    if setting.tiny:
        words.append("--tiny")
    limit = PARTS[name][1]
    # What it says of an earlier try must not be taken for this one.
    (setting.out / f"{name}.json").unlink(missing_ok=True)
    rows_file(name, setting).unlink(missing_ok=True)
    began = time.time()
    cut = False
    try:
        code = subprocess.run(
            [sys.executable, __file__, *words], cwd=ROOT, timeout=limit
        ).returncode
        reason = f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        cut = True
        reason = f"cut at its limit of {limit} s"
    found = read_part(name, setting)
    if found is None:
        # What was measured before is a result; so is the log of a training that was cut.
        rows = read_rows(rows_file(name, setting)) or logged(setting.out / name)
        found = {"status": "done" if cut and rows else "failed", "reason": reason, "rows": rows}
        found |= {"seconds": round(time.time() - began, 1), "device": device_kind(setting.device)}
        write_json(setting.out / f"{name}.json", found)
    return found


def rows_file(name: str, setting: Setting) -> Path:
    """Where a part leaves its rows as they are measured."""
    return setting.out / f"{name}.jsonl"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a file with one JSON object a line; none where there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def read_part(name: str, setting: Setting) -> dict[str, Any] | None:
    """What a part left; None where it left nothing."""
    file = setting.out / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def summary(setting: Setting, found: dict[str, dict[str, Any]]) -> str:
    """SUMMARY.md: a table a part."""
    lines = [f"# {device_kind(setting.device)}", ""]
    lines.append(f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    for name, part in found.items():
        lines += ["", f"## {name}: {part['status']}, {part.get('seconds', 0):g} s", ""]
        if part["reason"]:
            lines += [part["reason"], ""]
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        # What a row is of comes before its numbers.
        numbers = {key for row in part["rows"] for key in row if isinstance(row[key], int | float)}
        columns.sort(key=numbers.__contains__)
        if columns:
            lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in part["rows"]:
            lines.append("| " + " | ".join(shown(row.get(key, "")) for key in columns) + " |")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A value of a table: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--tiny", action="store_true", help="a dry run at the smallest sizes")
    parser.add_argument("--part", choices=PARTS, action="append", help="of this process, no other")
    args = parser.parse_args(argv)
    if is_gpu(args.device) and not torch.cuda.is_available():
        print(f"--device {args.device}: torch sees no CUDA device", file=sys.stderr)
        return NO_GPU
    setting = Setting(args.device, args.tiny, args.out.absolute())
    setting.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        return max(int(run_part(name, setting)["status"] != "done") for name in args.part)
    found: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        earlier = read_part(name, setting)
        done = earlier is not None and earlier["status"] == "done"
        print(f"{name}: {'done already' if done else 'begun'}", flush=True)
        found[name] = earlier if earlier is not None and done else run_apart(name, setting)
        # After every part, so that what there is can be read if the rest is lost.
        write_atomic(setting.out / "SUMMARY.md", summary(setting, found))
    print(summary(setting, found), end="")
    return int(any(part["status"] != "done" for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
