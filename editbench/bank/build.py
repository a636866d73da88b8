"""Building a bank shard by shard.

A shard is written completely or not at all, and any number of processes may build at the same time.
The bytes depend neither on the number of processes nor on the shard size.
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
from editbench.base.workers import prepare_workers, start_worker
from editbench.networks.roles import ROLES, Networks

# Largest accepted difference of a logit between two kinds of devices in one bank, in sigmas. It is
# the tolerance for a different batch size, see editbench.walk.engine.
SAME_DEVICES = 1e-3
ROUNDING = 1e-13  # relative rounding of a float64 number after some sums
ENOUGH = 32  # so many samples with all values in [0, 1] are taken as evidence against logits


@dataclass(frozen=True)
class BankBuild:
    """The arguments shared by all processes that build shards of one bank.

    Attributes:
        folder: of the bank.
        spec: of the bank, with the shard size of the folder.
        device: where the networks run.
        batch: samples in memory at a time; None means one block.
    """

    folder: Path
    spec: BankSpec
    device: str = "cpu"
    batch: int | None = None

    def missing(self) -> list[int]:
        """Numbers of the shards that do not exist yet."""
        return [k for k in range(self.spec.shards) if not shard_folder(self.folder, k).exists()]


def build_bank(
    folder: Path,
    bank_id: str,
    spec: BankSpec,
    load: Callable[[], Networks],
    device: str = "cpu",
    workers: int = 1,
    batch: int | None = None,
) -> Bank:
    """Build the missing shards of a bank and open it.

    Args:
        folder: of the bank; existing shards are kept.
        bank_id: content address of the bank, which bank.json records.
        spec: of the bank.
        load: loads the networks. It must be picklable if workers > 1, since each worker loads its
            own networks.
        device: where the networks run.
        workers: number of processes that build.
        batch: samples in memory at a time; None means one block.

    Returns:
        The complete bank, opened.

    Raises:
        NonFinite: a network produced NaN or infinity.
        BadFile: an existing shard is damaged, or a logit is constant.
    """
    build = BankBuild(folder, fix_layout(folder, spec), device, batch)
    missing = build.missing()
    if missing:
        _take_back(build)
    if workers > 1 and len(missing) > 1:
        _build_with_workers(build, load, workers, missing)
    elif missing:
        _build_here(build, load(), missing)
    return _finish_bank(build, bank_id, load())


def _take_back(build: BankBuild) -> None:
    """Remove bank.json if a shard is missing, so that it is written again from the new shards.

    The sigma that it holds may come from a damaged shard that has been deleted since, and another
    kind of device may build the new shard.
    """
    path = build.folder / "bank.json"
    with lock(path):
        # Another process may have finished the bank before this one got the lock.
        if build.missing():
            path.unlink(missing_ok=True)


def _build_with_workers(
    build: BankBuild, load: Callable[[], Networks], workers: int, missing: list[int]
) -> None:
    """Build the missing shards in worker processes."""
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(
        workers,
        prepare_workers(),
        initializer=start_worker,
        initargs=tuple(user_code.searched_folders()),
    )
    try:
        with progress("bank shards", len(missing)) as advance:
            # Shards locked by other processes come last. By then they are built, or the process
            # that built them has died and the lock is free.
            for wait in (False, True):
                jobs = {}
                for k in missing:
                    jobs[k] = pool.submit(_build_in_worker, build, load, k, threads, wait)
                missing = []
                for k, job in jobs.items():
                    if job.result():
                        advance()
                    else:
                        missing.append(k)
    finally:
        # After an error or Ctrl-C the queued shards are not built.
        pool.shutdown(wait=False, cancel_futures=True)


def _build_here(build: BankBuild, networks: Networks, missing: list[int]) -> None:
    """Build the missing shards in this process."""
    rows = 0
    for k in missing:
        start, stop = build.spec.range_of(k)
        rows += stop - start
    with progress("bank samples", rows) as advance:
        # As with workers, shards locked by other processes come last.
        for wait in (False, True):
            held = []
            for k in missing:
                if not build_shard(build, networks, k, advance, wait):
                    held.append(k)
            missing = held


def fix_layout(folder: Path, spec: BankSpec) -> BankSpec:
    """The spec with the shard size recorded in the folder; a new folder records the given one.

    The shard size is not part of a bank's identity, so two commands may name different sizes.

    Args:
        folder: of the bank; it need not exist yet.
        spec: of the bank; its shard size holds only for a new folder.

    Raises:
        BadFile: the layout file of the folder is damaged.
    """
    path = folder / LAYOUT
    # A bank that was started is read without a lock, since its folder may be read-only.
    if not path.exists():
        # Without the lock, two processes that start a bank could each use their own layout.
        with lock(path):
            if not path.exists():
                write_json(path, {"shard": spec.shard})
    return replace(spec, shard=shard_size(folder, spec.shard))


def _build_in_worker(
    build: BankBuild, load: Callable[[], Networks], shard: int, threads: int, wait: bool
) -> bool:
    """`build_shard` for a worker process that shares the cores with others; shows no progress."""
    torch.set_num_threads(threads)
    return build_shard(build, load(), shard, lambda amount=1: None, wait)


def build_shard(
    build: BankBuild, networks: Networks, shard: int, advance: Advance, wait: bool = True
) -> bool:
    """Build one shard unless it exists.

    Args:
        build: of the bank.
        networks: generator, teacher and judge.
        shard: its number.
        advance: called with the number of samples done.
        wait: whether to wait for a shard that another process has locked.

    Returns:
        False if another process has locked the shard and `wait` is False; otherwise True.
    """
    path = shard_folder(build.folder, shard)
    start, stop = build.spec.range_of(shard)
    try:
        with lock(path).acquire(blocking=wait):
            # Checked under the lock, since another process may have just finished the shard.
            if path.exists():
                advance(stop - start)
            else:
                _write_shard(build, networks, shard, advance)
    except Timeout:
        return False
    return True


def _write_shard(build: BankBuild, networks: Networks, shard: int, advance: Advance) -> None:
    """Compute and write the samples of a shard; the caller holds its lock."""
    path = shard_folder(build.folder, shard)
    start, stop = build.spec.range_of(shard)
    # The lock is held, so no running process is writing to a partial folder of this shard.
    sweep_partials(path)
    about = {"rows": [start, stop], "device": device_kind(build.device)}
    # Rows are written as they are computed. With a memory map, a full disk would kill the process
    # (SIGBUS); an ordinary write raises an error that can be explained.
    with atomic_folder(path, about) as partial, ExitStack() as stack:
        streams = {}
        for name, width in _widths(networks).items():
            stream = stack.enter_context((partial / f"{name}.npy").open("wb"))
            write_npy_header(stream, (stop - start, width))
            streams[name] = stream
        begun: list[dict[str, np.ndarray]] = []  # the first samples
        done = 0
        for block in _blocks(build, networks, start, stop):
            count = len(block["z"])
            # Checked once there are enough samples: a few logits could lie in [0, 1] by chance.
            if done < ENOUGH:
                begun.append(block)
                if done + count >= ENOUGH:
                    refuse_probabilities(_joined(begun), networks)
            for name, values in block.items():
                streams[name].write(np.ascontiguousarray(values, np.float32).tobytes())
            done += count
            advance(count)


def _widths(networks: Networks) -> dict[str, int]:
    """Name of an array of `compute_block` -> its number of columns."""
    generator = networks.generator
    widths = {
        "z": generator.z_dim,
        "teacher": networks.teacher.attributes.width,
        "judge": networks.judge.attributes.width,
    }
    # A generator without a mapping network has no W.
    if Space.W in generator.spaces:
        widths["w"] = generator.w_dim
    if networks.judge.has_quality:
        widths["quality"] = 1
    return widths


def _blocks(
    build: BankBuild, networks: Networks, start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield samples start..stop-1 in order, as `compute_block` returns them."""
    block = build.spec.block
    batch = build.batch or block
    batches = Batches(batch, "bank", networks.generator)
    # Several whole blocks if they fit into memory, otherwise parts of a block.
    together = max(block, batch // block * block)
    for first in range(start, stop, together):

        def work(rows: slice, first: int = first) -> dict[str, np.ndarray]:
            place = (first + rows.start, first + rows.stop)
            return compute_block(build.spec.seed, *place, networks, build.device)

        yield _joined(batches.run(min(together, stop - first), work))


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate several results of `compute_block`."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_npy_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file of float32 rows; the rows follow as raw bytes.

    Args:
        stream: of the file, at its start.
        shape: of the whole array.
    """
    # numpy.save writes the same version of the header.
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Compute with one thread if the device is a CPU.

    Several threads may split one sum, whose last bits then depend on the number of threads. The
    bytes of a bank must not depend on it. Worker processes use the other cores instead.
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
    seed: int, start: int, stop: int, networks: Networks, device: str
) -> dict[str, np.ndarray]:
    """Compute samples start..stop-1; every image is decoded once.

    Args:
        seed: of the bank.
        start: first sample.
        stop: last sample + 1.
        networks: generator, teacher and judge.
        device: where they run.

    Returns:
        float32 arrays: 'z' (n, z_dim), 'w' (n, w_dim) if the generator has W, 'teacher' and 'judge'
        (n, width), 'quality' (n, 1) if the judge gives it.

    Raises:
        NonFinite: a value is NaN or infinite; the message names the first such sample.
    """
    generator = networks.generator
    # Drawn on the host in float64, so that the latents do not depend on the device.
    z = torch.from_numpy(normals(seed, "bank", start, stop, generator.z_dim)).float()
    out = {"z": z}
    with _one_thread(device):
        codes = generator.latent(to_device(z, torch.device(device)))
        if codes.space == Space.W:
            out["w"] = codes.values
        decoded = generator.decode(codes)
        logits, quality = networks.judge.assess(decoded)
        # A scorer that is both teacher and judge is called once.
        shared = networks.teacher is networks.judge
        out["teacher"] = logits if shared else networks.teacher(decoded)
        out["judge"] = logits
        if quality is not None:
            out["quality"] = quality
    arrays = {}
    for name, values in zip(out, to_host(*(values.float() for values in out.values()))):
        _refuse_non_finite(name, values, start)
        arrays[name] = values.numpy()
    return arrays


def refuse_probabilities(block: dict[str, np.ndarray], networks: Networks) -> None:
    """Reject a network whose output looks like probabilities or labels, not logits.

    This concerns networks that do not declare the kind of their output. ENOUGH samples are
    sufficient evidence: so many logits do not all lie in [0, 1].

    Args:
        block: result of `compute_block`.
        networks: generator, teacher and judge.

    Raises:
        BadFile: all values lie in [0, 1].
    """
    for role, scorer in networks.scorers.items():
        # A sign of -1 turns [0, 1] into [-1, 0]; either way all values are on one side of 0.
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
    """Raise NonFinite if `values` (n, d), of the samples from `start` on, have NaN or infinity."""
    finite = torch.isfinite(values)
    if finite.all():
        return
    bad = start + int((~finite.all(1)).nonzero()[0])
    # W comes from the generator only; a bad logit may be due to the image or to the scorer.
    networks = "generator"
    if name != "w":
        networks = f"generator and the {name}"
    raise NonFinite(
        f"bank sample {bad} has NaN or infinite {name}: check the weights of the {networks}"
    )


def _finish_bank(build: BankBuild, bank_id: str, networks: Networks) -> Bank:
    """Write bank.json after all shards exist, and open the bank."""
    # bank.json is written last, so a bank that has it is complete.
    path = build.folder / "bank.json"
    # A complete bank is opened without a lock, since its folder may be read-only.
    if not path.exists():
        with lock(path):
            if not path.exists():
                write_json(path, _description(build, bank_id, networks))
    return Bank(build.folder)


def _description(build: BankBuild, bank_id: str, networks: Networks) -> dict[str, object]:
    """The content of bank.json."""
    folder = build.folder
    spec = build.spec
    # Checked first, so that the message names a damaged shard before its values are summed.
    for shard in range(spec.shards):
        check_shard(shard_folder(folder, shard), spec.range_of(shard))
    sigma = {}
    for role, scorer in networks.scorers.items():
        sigma[role] = stream_sigma(folder, spec, role, scorer.attributes).tolist()
    digests = {role: scorer.digest for role, scorer in networks.scorers.items()}
    return {
        "version": VERSION,
        "id": bank_id,
        # The key leaves out the hash of the code, so that versions of the code are compared on the
        # same starts. It identifies the generator by its images, so that other coordinates of the
        # latent space keep the same starts too.
        "samples": samples_key(
            vars(spec), {"generator": networks.generator.samples_digest, **digests}
        ),
        "spec": vars(spec),
        # Listed from a shard, since whether there are z and w depends on the generator.
        "fields": sorted(file.stem for file in shard_folder(folder, 0).glob("*.npy")),
        "sigma": sigma,
        "devices": check_devices(build, networks, sigma),
        "generator": networks.generator.digest,
        **digests,
        "output": networks.generator.output,
        "teacher_attributes": networks.teacher.attributes.as_config(),
        "judge_attributes": networks.judge.attributes.as_config(),
    }


def check_devices(build: BankBuild, networks: Networks, sigma: dict[str, list[float]]) -> list[str]:
    """The kinds of devices that made the shards, after a check that they give the same numbers.

    For every kind other than this process's own, the first block of one shard is computed again.

    Args:
        build: of the bank, with all its shards.
        networks: generator, teacher and judge.
        sigma: 'teacher' and 'judge' -> (width,) of each log-odds.

    Raises:
        BadFile: a logit differs by more than SAME_DEVICES times the smallest sigma of its network.
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
        again = compute_block(spec.seed, first, stop, networks, build.device)
        for role in ROLES:
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
    # Distances are divided by sigma, so it must not be 0. `~(sigma > ...)` also catches NaN. The
    # log-odds of one of several classes are rounded, and so is their mean: the deviation of a
    # constant is then a rounding error and not exactly 0.
    constant = ~(sigma > ROUNDING * np.maximum(np.abs(mean), 1.0))
    if constant.any():
        name = attributes.columns()[int(constant.argmax())]
        raise BadFile(
            f"the {role}'s logit '{name}' is constant over the bank in {folder}: it can't be a "
            "benchmark attribute; leave it out of the scorer's attributes"
        )
    return sigma
