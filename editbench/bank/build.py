"""Building a bank: shards one by one, each written whole or not at all, by any number of processes at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import Timeout

from editbench.bank.bank import VERSION, Bank, BankSpec, shard_folder
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, NonFinite
from editbench.base.files import (
    atomic_folder,
    lock,
    read_json,
    sweep_partials,
    write_json,
)
from editbench.base.identity import samples_key
from editbench.base.progress import Advance, progress
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

Models = tuple[Generator, Scorer, Scorer]  # generator, teacher, judge


def build_bank(
    folder: Path,
    bank_id: str,
    spec: BankSpec,
    models: Callable[[], Models],
    device: str = "cpu",
    workers: int = 1,
) -> Bank:
    """Build what is missing of a bank and open it. `models` must be picklable when workers > 1."""
    spec = settled_layout(folder, spec)
    missing = [k for k in range(spec.shards) if not shard_folder(folder, k).exists()]
    if workers > 1 and len(missing) > 1:
        threads = max(1, torch.get_num_threads() // workers)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context)
        try:
            with progress("bank shards", len(missing)) as advance:
                for wait in (
                    False,
                    True,
                ):  # what other processes hold comes last: they finish it, or die
                    jobs = {
                        k: pool.submit(
                            _build_in_worker, folder, spec, models, device, k, threads, wait
                        )
                        for k in missing
                    }
                    missing = []
                    for k, job in jobs.items():
                        if job.result():
                            advance()
                        else:
                            missing.append(k)
        finally:  # on an error or Ctrl-C the queued shards are not waited for
            pool.shutdown(wait=False, cancel_futures=True)
    elif missing:
        parts = models()
        rows = sum(b - a for a, b in map(spec.range_of, missing))
        with progress("bank samples", rows) as advance:
            for wait in (False, True):
                missing = [
                    k
                    for k in missing
                    if not build_shard(folder, spec, parts, device, k, advance, wait)
                ]
    return finish_bank(folder, bank_id, spec, models())


def settled_layout(folder: Path, spec: BankSpec) -> BankSpec:
    """The spec with the shard size that the folder was begun with: the size is no part of a bank's identity."""
    path = folder / "layout.json"
    with lock(path):
        if not path.exists():
            write_json(path, {"shard": spec.shard})
        return current_layout(folder, spec)


def current_layout(folder: Path, spec: BankSpec) -> BankSpec:
    """The spec with the shard size of what is there; as it is where nothing is."""
    path = folder / "layout.json"
    return replace(spec, shard=read_json(path, sealed=True)["shard"]) if path.exists() else spec


def _build_in_worker(
    folder: Path,
    spec: BankSpec,
    models: Callable[[], Models],
    device: str,
    shard: int,
    threads: int,
    wait: bool,
) -> bool:
    torch.set_num_threads(threads)
    return build_shard(folder, spec, models(), device, shard, lambda amount=1: None, wait)


def build_shard(
    folder: Path,
    spec: BankSpec,
    models: Models,
    device: str,
    shard: int,
    advance: Advance,
    wait: bool = True,
) -> bool:
    """Build one shard unless it is there. One that another process holds: wait for it, or return False at once."""
    path = shard_folder(folder, shard)
    start, stop = spec.range_of(shard)
    try:
        with lock(path).acquire(blocking=wait):
            if path.exists():
                advance(stop - start)
            else:
                _write_shard(path, spec, models, device, (start, stop), advance)
    except Timeout:
        return False
    return True


def _write_shard(
    path: Path, spec: BankSpec, models: Models, device: str, rows: tuple[int, int], advance: Advance
) -> None:
    """Compute and write samples rows[0]..rows[1]-1; the caller holds the lock of the shard."""
    start, stop = rows
    sweep_partials(path)
    with atomic_folder(path, {"rows": [start, stop]}) as partial:
        generator, teacher, judge = models
        widths = {
            "z": generator.z_dim,
            "teacher": teacher.attributes.width,
            "judge": judge.attributes.width,
        }
        if Space.W in generator.spaces:
            widths["w"] = generator.w_dim
        # Rows are written as they come. A memory map would do the same, but a full disk ends the
        # process there (SIGBUS); an ordinary write raises an error that can be explained.
        with ExitStack() as stack:
            streams = {}
            for name, width in widths.items():
                stream = stack.enter_context((partial / f"{name}.npy").open("wb"))
                write_npy_header(stream, (stop - start, width))
                streams[name] = stream
            for first in range(start, stop, spec.block):
                last = min(first + spec.block, stop)
                for name, values in compute_block(spec.seed, first, last, models, device).items():
                    streams[name].write(np.ascontiguousarray(values, np.float32).tobytes())
                advance(last - first)


def write_npy_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    """Begin a .npy file of float32 rows, which follow as bytes."""
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """On some processors several threads share one sum, whose last bits then depend on their number; a bank must not.
    Cores are put to use by workers."""
    threads = torch.get_num_threads()
    try:
        if torch.device(device).type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def compute_block(
    seed: int, start: int, stop: int, models: Models, device: str
) -> dict[str, np.ndarray]:
    """Samples start..stop-1, every image decoded once: z, w where there is one, teacher and judge logits."""
    generator, teacher, judge = models
    z = torch.from_numpy(normals(seed, "bank", start, stop, generator.z_dim)).float()
    out = {"z": z}
    with _one_thread(device):
        codes = Codes(Space.Z, z.to(device))
        if Space.W in generator.spaces:
            codes = Codes(Space.W, generator.map(codes.values))
            out["w"] = codes.values
        decoded = generator.decode(codes)
        out["teacher"] = teacher(decoded)
        out["judge"] = out["teacher"] if judge is teacher else judge(decoded)
    for name, values in out.items():
        if not torch.isfinite(values).all():
            bad = start + int((~torch.isfinite(values).all(1)).nonzero()[0])
            raise NonFinite(
                f"bank sample {bad} has NaN or infinite {name}: check the weights of the "
                f"{'generator' if name == 'w' else 'generator and the ' + name}"
            )
    return {name: values.float().cpu().numpy() for name, values in out.items()}


def finish_bank(folder: Path, bank_id: str, spec: BankSpec, models: Models) -> Bank:
    """Write bank.json once every shard is there; the standard deviations stream over the shards."""
    generator, teacher, judge = models
    with lock(folder / "bank.json"):
        if not (folder / "bank.json").exists():
            names = {"teacher": teacher.attributes, "judge": judge.attributes}
            sigma = {
                role: stream_sigma(folder, spec, role, attributes).tolist()
                for role, attributes in names.items()
            }
            fields = sorted(file.stem for file in shard_folder(folder, 0).glob("*.npy"))
            write_json(
                folder / "bank.json",
                {
                    "version": VERSION,
                    "id": bank_id,
                    "samples": samples_key(
                        vars(spec),
                        {
                            "generator": generator.digest,
                            "teacher": teacher.digest,
                            "judge": judge.digest,
                        },
                    ),
                    "spec": vars(spec),
                    "fields": fields,
                    "sigma": sigma,
                    "generator": generator.digest,
                    "teacher": teacher.digest,
                    "judge": judge.digest,
                    "output": generator.output,
                    "teacher_attributes": teacher.attributes.as_config(),
                    "judge_attributes": judge.attributes.as_config(),
                },
            )
    return Bank(folder)


def stream_sigma(folder: Path, spec: BankSpec, role: str, attributes: Attributes) -> np.ndarray:
    """Standard deviation (n - 1) of each log-odds, float64, from block moments merged in order of the index."""
    count, mean, m2 = 0, np.zeros(attributes.width), np.zeros(attributes.width)
    for k in range(spec.shards):
        logits = np.load(shard_folder(folder, k) / f"{role}.npy", mmap_mode="r", allow_pickle=False)
        for first in range(0, len(logits), spec.block):
            block = torch.from_numpy(np.array(logits[first : first + spec.block], np.float64))
            odds = attributes.log_odds(block).numpy()
            n, gap = len(odds), odds.mean(0) - mean
            total = count + n
            m2 += ((odds - odds.mean(0)) ** 2).sum(0) + gap**2 * count * n / total
            mean += gap * n / total
            count = total
    sigma = np.sqrt(m2 / max(count - 1, 1))
    if not np.all(sigma > 0):
        names = [name for name, s in zip(attributes.columns(), sigma) if not s > 0]
        raise BadFile(
            f"the {role}'s logit '{names[0]}' is constant over the bank in {folder}: it can't be a benchmark "
            "attribute; leave it out of the scorer's attributes"
        )
    return sigma
