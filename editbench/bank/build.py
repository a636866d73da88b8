"""Building a bank shard by shard.

Each shard is written whole or not at all, and any number of processes may build at once. The bytes
depend neither on the number of processes nor on the size of a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from editbench.bank.bank import VERSION, Bank, check_shard
from editbench.bank.layout import LAYOUT, shard_folder, shard_size
from editbench.bank.spec import BankSpec
from editbench.bank.values import recognise
from editbench.base import user_code
from editbench.base.attributes import Attributes
from editbench.base.batches import Batches
from editbench.base.devices import device_kind, to_device, to_host
from editbench.base.errors import BadFile, NonFinite
from editbench.base.files import (
    atomic_folder,
    lock,
    read_seal,
    sweep_partials,
    write_json,
)
from editbench.base.identity import samples_key
from editbench.base.progress import Advance, progress
from editbench.base.seeding import normals
from editbench.base.spaces import Space
from editbench.base.workers import worker_context
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

Models = tuple[Generator, Scorer, Scorer]  # generator, teacher, judge
# Largest difference of a logit between two kinds of devices in one bank, in sigmas: what another
# batch size does, see editbench.walk.engine.
SAME_DEVICES = 1e-3
ROUNDING = 1e-13  # of a number of float64 about 1, after some sums
ENOUGH = 32  # samples from which on values in [0, 1] alone are no logits


@dataclass(frozen=True)
class BankBuild:
    """What every process that builds shards of one bank is told.

    Attributes:
        folder: of the bank.
        spec: of the bank, with the shard size of the folder.
        device: where the networks run.
        batch: samples in memory at a time; None: a block.
    """

    folder: Path
    spec: BankSpec
    device: str = "cpu"
    batch: int | None = None

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [k for k in range(self.spec.shards) if not shard_folder(self.folder, k).exists()]


def build_bank(
    folder: Path,
    bank_id: str,
    spec: BankSpec,
    models: Callable[[], Models],
    device: str = "cpu",
    workers: int = 1,
    batch: int | None = None,
) -> Bank:
    """Build the missing shards of a bank and open it.

    Args:
        folder: of the bank; what it has already is kept.
        bank_id: content address of the bank, which bank.json records.
        spec: what the bank is to have.
        models: loads the networks. It must be picklable when workers > 1, since each worker loads
            its own.
        device: where the networks run.
        workers: processes that build.
        batch: samples in memory at a time; None: a block.

    Returns:
        The complete bank, opened.

    Raises:
        NonFinite: a network produced NaN or infinity.
        BadFile: a shard that is there already is damaged, or a logit is constant.
    """
    build = BankBuild(folder, fix_layout(folder, spec), device, batch)
    missing = build.missing()
    if missing:
        _take_back(build)
    if workers > 1 and len(missing) > 1:
        _build_with_workers(build, models, workers, missing)
    elif missing:
        _build_here(build, models(), missing)
    return finish_bank(build, bank_id, models())


def _take_back(build: BankBuild) -> None:
    """Remove bank.json while a shard is missing, so that it is written of what is built now.

    Its sigma may be of a damaged shard that was deleted since, and another kind of device may build
    the new one.
    """
    path = build.folder / "bank.json"
    with lock(path):
        # Another process may have built the shards, and finished the bank, before this one had the
        # lock.
        if build.missing():
            path.unlink(missing_ok=True)


def _build_with_workers(
    build: BankBuild, models: Callable[[], Models], workers: int, missing: list[int]
) -> None:
    """Build the missing shards in processes of their own."""
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(
        workers,
        worker_context(),
        initializer=user_code.search_folders,
        initargs=tuple(user_code.searched_folders()),
    )
    try:
        with progress("bank shards", len(missing)) as advance:
            # Shards that other processes hold come last: by then they are built, or their builder
            # has died and its lock is free.
            for wait in (False, True):
                jobs = {}
                for k in missing:
                    jobs[k] = pool.submit(_build_in_worker, build, models, k, threads, wait)
                missing = []
                for k, job in jobs.items():
                    if job.result():
                        advance()
                    else:
                        missing.append(k)
    finally:
        # After an error or Ctrl-C the queued shards are not built.
        pool.shutdown(wait=False, cancel_futures=True)


def _build_here(build: BankBuild, models: Models, missing: list[int]) -> None:
    """Build the missing shards in this process."""
    rows = 0
    for k in missing:
        start, stop = build.spec.range_of(k)
        rows += stop - start
    with progress("bank samples", rows) as advance:
        # As with workers: shards that other processes hold come last.
        for wait in (False, True):
            held = []
            for k in missing:
                if not build_shard(build, models, k, advance, wait):
                    held.append(k)
            missing = held


def fix_layout(folder: Path, spec: BankSpec) -> BankSpec:
    """The spec with the shard size that the folder was begun with; records it in a new folder.

    The size is no part of a bank's identity, so two commands may name different sizes.
    """
    path = folder / LAYOUT
    # Without the lock, two first builders could each lay the files out in their own way.
    with lock(path):
        if not path.exists():
            write_json(path, {"shard": spec.shard})
        return replace(spec, shard=shard_size(folder, spec.shard))


def _build_in_worker(
    build: BankBuild, models: Callable[[], Models], shard: int, threads: int, wait: bool
) -> bool:
    """`build_shard` in a process that shares the processor with others, without progress."""
    torch.set_num_threads(threads)
    return build_shard(build, models(), shard, lambda amount=1: None, wait)


def build_shard(
    build: BankBuild, models: Models, shard: int, advance: Advance, wait: bool = True
) -> bool:
    """Build one shard unless it is there.

    Args:
        build: of the bank.
        models: generator, teacher and judge.
        shard: its number.
        advance: is called with the number of samples done.
        wait: whether to wait for a shard that another process holds.

    Returns:
        False where another process holds the shard and `wait` is False.
    """
    path = shard_folder(build.folder, shard)
    start, stop = build.spec.range_of(shard)
    try:
        with lock(path).acquire(blocking=wait):
            # Only the holder of the lock can tell: another process may have just finished it.
            if path.exists():
                advance(stop - start)
            else:
                _write_shard(build, models, shard, advance)
    except Timeout:
        return False
    return True


def _write_shard(build: BankBuild, models: Models, shard: int, advance: Advance) -> None:
    """Compute and write the samples of a shard; the caller holds its lock."""
    path = shard_folder(build.folder, shard)
    start, stop = build.spec.range_of(shard)
    # The lock is held, so a partial folder of this shard has no living writer.
    sweep_partials(path)
    about = {"rows": [start, stop], "device": device_kind(build.device)}
    # Rows are written as they come. A memory map would do the same, but a full disk ends the process
    # there (SIGBUS); an ordinary write raises an error that can be explained.
    with atomic_folder(path, about) as partial, ExitStack() as stack:
        streams = {}
        for name, width in _widths(models).items():
            stream = stack.enter_context((partial / f"{name}.npy").open("wb"))
            write_npy_header(stream, (stop - start, width))
            streams[name] = stream
        begun: list[dict[str, np.ndarray]] = []  # the first samples
        done = 0
        for block in _blocks(build, models, start, stop):
            count = len(block["z"])
            # Once, as soon as there are enough: a few logits could lie in [0, 1] by chance.
            if done < ENOUGH:
                begun.append(block)
                if done + count >= ENOUGH:
                    refuse_probabilities(_joined(begun), models)
            for name, values in block.items():
                streams[name].write(np.ascontiguousarray(values, np.float32).tobytes())
            done += count
            advance(count)


def _widths(models: Models) -> dict[str, int]:
    """Name of an array of `compute_block` -> its columns."""
    generator, teacher, judge = models
    widths = {
        "z": generator.z_dim,
        "teacher": teacher.attributes.width,
        "judge": judge.attributes.width,
    }
    # A generator without a mapping network has no W.
    if Space.W in generator.spaces:
        widths["w"] = generator.w_dim
    if judge.has_quality:
        widths["quality"] = 1
    return widths


def _blocks(
    build: BankBuild, models: Models, start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
    """Samples start..stop-1 in turn, as `compute_block` gives them."""
    block = build.spec.block
    batch = build.batch or block
    batches = Batches(batch, "bank", models[0])
    # Whole blocks where the memory holds several, and parts of one where it does not.
    together = max(block, batch // block * block)
    for first in range(start, stop, together):

        def work(rows: slice, first: int = first) -> dict[str, np.ndarray]:
            place = (first + rows.start, first + rows.stop)
            return compute_block(build.spec.seed, *place, models, build.device)

        yield _joined(batches.run(min(together, stop - first), work))


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several results of `compute_block` as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_npy_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    """Begin a .npy file of float32 rows, which follow as bytes.

    Args:
        stream: of the file, at its start.
        shape: of the whole array.
    """
    # numpy.save writes this version of the header too.
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Compute with one thread on a processor.

    Several threads may share one sum, whose last bits then depend on their number. The bytes of a
    bank must not depend on it. Workers make use of the cores instead.
    """
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
    """Compute samples start..stop-1; every image is decoded once.

    Args:
        seed: of the bank.
        start: first sample.
        stop: last sample + 1.
        models: generator, teacher and judge.
        device: where they run.

    Returns:
        'z' (n, z_dim), 'w' (n, w_dim) where the generator has W, 'teacher' and 'judge' (n, width),
        'quality' (n, 1) where the judge gives it; float32.

    Raises:
        NonFinite: names the first bad sample.
    """
    generator, teacher, judge = models
    # Drawn on the host in float64: the bank has the same latents whatever the device.
    z = torch.from_numpy(normals(seed, "bank", start, stop, generator.z_dim)).float()
    out = {"z": z}
    with _one_thread(device):
        codes = generator.latent(to_device(z, torch.device(device)))
        if codes.space == Space.W:
            out["w"] = codes.values
        decoded = generator.decode(codes)
        logits, quality = judge.assess(decoded)
        # One scorer in both roles scores once.
        out["teacher"] = logits if teacher is judge else teacher(decoded)
        out["judge"] = logits
        if quality is not None:
            out["quality"] = quality
    arrays = {}
    for name, values in zip(out, to_host(*(values.float() for values in out.values()))):
        _refuse_non_finite(name, values, start)
        arrays[name] = values.numpy()
    return arrays


def refuse_probabilities(block: dict[str, np.ndarray], models: Models) -> None:
    """Raise BadFile where a network that does not say what it gives gives no logits.

    ENOUGH samples tell: so many logits do not all lie in [0, 1].

    Args:
        block: of `compute_block`.
        models: generator, teacher and judge.
    """
    for role, scorer in (("teacher", models[1]), ("judge", models[2])):
        # A sign turns [0, 1] into [-1, 0]; the network's own values are on one side of 0.
        found = recognise(np.abs(block[role]))
        one_side = (block[role] >= 0).all(0) | (block[role] <= 0).all(0)
        if scorer.says_output or found == "logits" or not one_side.all():
            continue
        raise BadFile(
            f"the {role} returns only values in [0, 1], as {found} do, but logits are needed: set "
            "output: probabilities in the scorer's YAML, or remove its sigmoid or threshold; if "
            "they are logits, set output: logits"
        )


def _refuse_non_finite(name: str, values: Tensor, start: int) -> None:
    """Raise NonFinite where `values` (n, d) of samples from `start` on have NaN or infinity."""
    finite = torch.isfinite(values)
    if finite.all():
        return
    bad = start + int((~finite.all(1)).nonzero()[0])
    # W comes from the generator alone; a bad logit may come from the image or from the scorer.
    networks = "generator"
    if name != "w":
        networks = f"generator and the {name}"
    raise NonFinite(
        f"bank sample {bad} has NaN or infinite {name}: check the weights of the {networks}"
    )


def finish_bank(build: BankBuild, bank_id: str, models: Models) -> Bank:
    """Write bank.json once every shard is there, and open the bank.

    Args:
        build: of the bank.
        bank_id: content address of the bank.
        models: generator, teacher and judge.

    Raises:
        BadFile: a shard is damaged or was made by a device that gives other numbers, or a logit is
            constant over the bank.
    """
    # bank.json is written last: where it is, the bank is complete.
    path = build.folder / "bank.json"
    with lock(path):
        if not path.exists():
            write_json(path, _description(build, bank_id, models))
    return Bank(build.folder)


def _description(build: BankBuild, bank_id: str, models: Models) -> dict[str, object]:
    """What bank.json holds."""
    generator, teacher, judge = models
    folder = build.folder
    spec = build.spec
    # A damaged shard is named here, and not met while it is summed up.
    for shard in range(spec.shards):
        check_shard(shard_folder(folder, shard), spec.range_of(shard))
    sigma = {
        "teacher": stream_sigma(folder, spec, "teacher", teacher.attributes).tolist(),
        "judge": stream_sigma(folder, spec, "judge", judge.attributes).tolist(),
    }
    digests = {"teacher": teacher.digest, "judge": judge.digest}
    return {
        "version": VERSION,
        "id": bank_id,
        # Without the hash of the code, so that versions are compared on one draw. Of the generator
        # that of its pictures: in other coordinates starts stay the same.
        "samples": samples_key(vars(spec), {"generator": generator.samples_digest, **digests}),
        "spec": vars(spec),
        # What the shards hold, since z and w depend on the generator.
        "fields": sorted(file.stem for file in shard_folder(folder, 0).glob("*.npy")),
        "sigma": sigma,
        "devices": check_devices(build, models, sigma),
        "generator": generator.digest,
        **digests,
        "output": generator.output,
        "teacher_attributes": teacher.attributes.as_config(),
        "judge_attributes": judge.attributes.as_config(),
    }


def check_devices(build: BankBuild, models: Models, sigma: dict[str, list[float]]) -> list[str]:
    """The kinds of devices that made the shards. Several must give the same numbers.

    Of every kind but this process's own, the first block of a shard is computed again here.

    Args:
        build: of the bank, with all its shards.
        models: generator, teacher and judge.
        sigma: 'teacher' and 'judge' -> (width,) of each log-odds.

    Raises:
        BadFile: a logit differs by more than SAME_DEVICES of the least sigma of its network.
    """
    spec = build.spec
    shards: dict[str, int] = {}  # kind -> one of its shards
    for shard in range(spec.shards):
        kind = read_seal(shard_folder(build.folder, shard)).get("device", "cpu")
        shards.setdefault(kind, shard)
    here = device_kind(build.device)
    if len(shards) == 1:
        return list(shards)
    for kind, shard in shards.items():
        if kind == here:
            continue
        folder = shard_folder(build.folder, shard)
        first, stop = spec.range_of(shard)
        stop = min(stop, first + spec.block)
        again = compute_block(spec.seed, first, stop, models, build.device)
        for role in ("teacher", "judge"):
            kept = np.load(folder / f"{role}.npy", mmap_mode="r")
            gap = np.abs(kept[: len(again[role])] - again[role]).max()
            if not gap <= SAME_DEVICES * min(sigma[role]):
                raise BadFile(
                    f"{folder} was built on {kind}, but on {here} the logits of the {role} "
                    f"differ by {gap:.2g}: delete the shards of one of the two, and "
                    "build the bank on one kind of device"
                )
    return sorted(shards)


def stream_sigma(folder: Path, spec: BankSpec, role: str, attributes: Attributes) -> np.ndarray:
    """Standard deviation of each log-odds, with n - 1 in the denominator.

    The moments of blocks are merged in the order of the index (Chan, Golub and LeVeque 1979), so
    the result does not depend on the size of a shard, and a bank may be larger than the memory.

    Args:
        folder: of the bank.
        spec: of the bank, with the shard size of the folder.
        role: 'teacher' or 'judge'.
        attributes: of the role.

    Returns:
        (width,) float64, all above 0.

    Raises:
        BadFile: a logit is constant over the bank.
    """
    count = 0
    mean = np.zeros(attributes.width)
    # Sum of squared deviations from the mean.
    m2 = np.zeros(attributes.width)
    for k in range(spec.shards):
        logits = np.load(shard_folder(folder, k) / f"{role}.npy", mmap_mode="r", allow_pickle=False)
        for first in range(0, len(logits), spec.block):
            block = torch.from_numpy(np.array(logits[first : first + spec.block], np.float64))
            odds = attributes.log_odds(block).numpy()
            n = len(odds)
            gap = odds.mean(0) - mean
            total = count + n
            m2 += ((odds - odds.mean(0)) ** 2).sum(0) + gap**2 * count * n / total
            mean += gap * n / total
            count = total
    sigma = np.sqrt(m2 / max(count - 1, 1))
    # Margins are divided by sigma. `not sigma > ...` is also true of NaN. The log-odds of one of many
    # classes are rounded, and so is their mean: of a constant a rounding is left, not 0.
    constant = ~(sigma > ROUNDING * np.maximum(np.abs(mean), 1.0))
    if constant.any():
        name = attributes.columns()[int(constant.argmax())]
        raise BadFile(
            f"the {role}'s logit '{name}' is constant over the bank in {folder}: it can't be a "
            "benchmark attribute; leave it out of the scorer's attributes"
        )
    return sigma
