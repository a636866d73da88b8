"""Computing an inversion block by block.

It can be interrupted and resumed, which does not change a bit of the result.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.batches import Batches, fitting_batch
from editbench.base.errors import BadFile, EditbenchError, NonFinite
from editbench.base.files import (
    atomic_folder,
    check_folder,
    digest,
    explain_disk_errors,
    file_sha256,
    lock,
    read_json,
    sweep_partials,
    usable_folder,
    write_json,
)
from editbench.base.identity import INVERSION_CODE, modules_digest
from editbench.base.images import to_host_bytes
from editbench.base.progress import Advance, progress
from editbench.base.spaces import Codes, Space
from editbench.inversion.images import ImageBatch, Images
from editbench.inversion.page import PAGE, write_page
from editbench.inversion.projector import (
    Inverted,
    Statistics,
    decode_inverted,
    invert,
    latent_statistics,
)
from editbench.inversion.spec import ProjectionSpec
from editbench.inversion.store import VERSION, Inversion, block_folder, psnr
from editbench.networks.perceptual import Perceptual
from editbench.networks.roles import Networks

PICTURES = 16  # number of first images that are stored with their reconstructions


@dataclass(frozen=True)
class Task:
    """Everything that an inversion depends on.

    Args:
        images: to invert.
        networks: the generator that is inverted, the teacher and the judge.
        code: hash of the networks' source code.
        perceptual: the perceptual distance.
        distance: identity of the perceptual distance, as a JSON-like value.
        spec: how images are inverted.
        block: number of images that are optimised together. Blocks begin at its multiples, so that
            the blocks of a resumed inversion are the same.
        device: of the computation.
    """

    images: Images
    networks: Networks
    code: str
    perceptual: Perceptual
    distance: object
    spec: ProjectionSpec
    block: int
    device: str

    @property
    def blocks(self) -> int:
        return -(-len(self.images) // self.block)

    @property
    def id(self) -> str:
        """Content address of the result."""
        parts = {role: network.digest for role, network in vars(self.networks).items()}
        return digest(
            {
                "version": VERSION,
                "code": [self.code, modules_digest(INVERSION_CODE)],
                "images": self.images.identity,
                "distance": self.distance,
                "spec": asdict(self.spec),
                # Other images of a block can change the last bit of a sum.
                "block": self.block,
            }
            | parts
        )


def build_inversion(folder: Path, task: Task) -> Inversion:
    """Compute the missing parts of an inversion, and open it.

    Args:
        folder: of the inversion; new, or with parts of the same task, which are kept.
        task: the images, the networks and the options.

    Raises:
        EditbenchError: the folder contains something else, or its name cannot be used.
        NonFinite: the loss or the reconstruction of an image is NaN or infinite.
    """
    usable_folder(folder)
    # A finished inversion is opened without a lock, since its folder may be read-only.
    if (folder / PAGE).is_file() and _task_id(folder) == task.id:
        return Inversion(folder)
    with explain_disk_errors(folder), lock(folder):
        sweep_partials(folder / "begun.json")
        if folder.exists() and any(folder.iterdir()) and _task_id(folder) != task.id:
            raise EditbenchError(
                f"{folder} contains something else (other images, networks, options or code): "
                "choose another folder, or delete it"
            )
        # Before any block, so that the blocks of an interrupted task are known as its own.
        write_json(folder / "begun.json", {"id": task.id})
        if not (folder / "inversion.json").is_file():
            _make_blocks(folder, task)
            _finish(folder, task)
        found = Inversion(folder)
        # The page is written last, and an earlier process may have been killed before that.
        if not (folder / PAGE).is_file():
            write_page(found)
    return found


def _task_id(folder: Path) -> str | None:
    """Id of the task that was begun in a folder; None if there was none."""
    begun = folder / "begun.json"
    return read_json(begun, sealed=True).get("id") if begun.is_file() else None


def _make_blocks(folder: Path, task: Task) -> None:
    missing = [k for k in range(task.blocks) if not block_folder(folder, k).exists()]
    if not missing:
        return
    statistics = latent_statistics(task.networks.generator, task.spec, task.device)
    with progress("inversion steps", len(missing) * task.spec.schedule.steps) as advance:
        for block in missing:
            # The lock is held, so a partial block was left by a process that was killed.
            sweep_partials(block_folder(folder, block))
            with atomic_folder(block_folder(folder, block), {"block": block}) as partial:
                _make_block(partial, task, block, statistics, advance)


def _make_block(
    folder: Path, task: Task, block: int, statistics: Statistics, advance: Advance
) -> None:
    """Invert the images of one block and write its files."""
    first = block * task.block
    attributes = task.networks.judge.attributes
    part = task.images.read(first, min(first + task.block, len(task.images)), attributes)
    write_json(folder / "skipped.json", part.skipped)
    # None of the images could be read; the steps of the block count as done.
    if not len(part.index):
        advance(task.spec.schedule.steps)
        return
    pixels = part.pixels.to(task.device)
    size = _images_at_once(task, pixels, statistics)
    found = _invert_all(task, pixels, part.index, statistics, size, advance)
    # Contiguous, since safetensors stores no other tensors.
    noise = {name: values[:, 0].cpu().contiguous() for name, values in found.noise.items()}
    save_file(
        {"codes": found.codes.values.cpu().contiguous()} | noise, folder / "codes.safetensors"
    )
    table, made = _measure(task, part, pixels, found, size)
    table.assign(block=block, row=np.arange(len(table))).to_parquet(folder / "table.parquet")
    if first < PICTURES:
        few = torch.from_numpy(part.index < PICTURES)
        save_file(
            {"original": to_host_bytes(pixels)[few], "reconstruction": to_host_bytes(made)[few]},
            folder / "pictures.safetensors",
        )


def _images_at_once(task: Task, pixels: Tensor, statistics: Statistics) -> int:
    """How many images fit into memory, by the gradient for one of them; at most all of `pixels`.

    Args:
        task: of the inversion.
        pixels: (n, C, H, W) images of a block.
        statistics: of the latents.
    """
    generator = task.networks.generator
    space = Space(task.spec.space)

    def one() -> Tensor:
        latent = statistics.mean.to(pixels)[None]
        code = generator.lift(latent, space).clone().requires_grad_()
        image = generator.decode(Codes(space, code))
        return torch.autograd.grad(task.perceptual.residual(image).square().sum(), code)[0]

    return fitting_batch(one, task.device, len(pixels), counted=generator)


def _invert_all(
    task: Task,
    pixels: Tensor,
    index: np.ndarray,
    statistics: Statistics,
    size: int,
    advance: Advance,
) -> Inverted:
    """Invert the images of a block, `size` at once; they are independent."""
    generator = task.networks.generator

    def work(rows: slice) -> Inverted:
        # Only the first batch advances the bar, which counts the steps of a block once.
        return invert(
            generator,
            task.perceptual,
            pixels[rows],
            task.spec,
            index[rows],
            statistics,
            advance=None if rows.start else advance,
        )

    return _joined(Batches(size, "inversion", generator).run(len(index), work))


def _joined(parts: list[Inverted]) -> Inverted:
    """Concatenate several results."""
    codes = torch.cat([part.codes.values for part in parts])
    noise = {name: torch.cat([part.noise[name] for part in parts]) for name in parts[0].noise}
    distance = torch.cat([part.distance for part in parts])
    return Inverted(Codes(parts[0].codes.space, codes), noise, distance)


def _measure(
    task: Task, part: ImageBatch, pixels: Tensor, found: Inverted, size: int
) -> tuple[pd.DataFrame, Tensor]:
    """The rows of the table for a block, and the reconstructions; `size` are decoded at once."""

    def work(rows: slice) -> tuple[dict[str, Tensor], Tensor]:
        noise = {name: one[rows] for name, one in found.noise.items()}
        some = Inverted(found.codes[rows], noise, found.distance[rows])
        return _reconstructed(task, pixels[rows], some)

    batches = Batches(size, "reconstructions", task.networks.generator)
    parts = batches.run(len(pixels), work)
    columns = {name: torch.cat([one[name] for one, _ in parts]) for name in parts[0][0]}
    for name, values in columns.items():
        # Without optimised noise, `noise_mse` is NaN for every image.
        if name != "noise_mse" and not bool(torch.isfinite(values).all()):
            bad = part.names[int((~torch.isfinite(values)).nonzero()[0])]
            raise NonFinite(
                f"the inversion of {bad} has NaN or infinite {name}: check the weights of generator and "
                "scorers"
            )
    frame = pd.DataFrame(
        {"index": part.index, "name": part.names}
        | {name: values.cpu().numpy() for name, values in columns.items()}
    )
    attributes = task.networks.judge.attributes
    truth = {f"truth:{name}": part.truth[:, k] for k, name in enumerate(attributes.names)}
    return frame.assign(**truth), torch.cat([made for _, made in parts])


@torch.no_grad()
def _reconstructed(task: Task, pixels: Tensor, found: Inverted) -> tuple[dict[str, Tensor], Tensor]:
    """Columns of the table, name -> (N,), and the reconstructions (N, C, H, W)."""
    generator, teacher, judge = task.networks.generator, task.networks.teacher, task.networks.judge
    # With the constant noise, as the walks decode them.
    made = generator.decode(found.codes)
    columns: dict[str, Tensor] = {"mse": (made - pixels).square().flatten(1).mean(1)}
    columns |= {
        "psnr": psnr(columns["mse"]),
        "perceptual": task.perceptual(made, pixels),
        "noise_mse": torch.full_like(columns["mse"], torch.nan),
    }
    if found.noise:
        own = decode_inverted(generator, found)
        columns["noise_mse"] = (own - pixels).square().flatten(1).mean(1)
    for role, scorer in (("judge", judge), ("teacher", teacher)):
        for prefix, shown in (("", made), ("real_", pixels)):
            logits = scorer(shown).float()
            names = scorer.attributes.columns()
            columns |= {f"{prefix}{role}:{name}": logits[:, k] for k, name in enumerate(names)}
    return columns, made


def _finish(folder: Path, task: Task) -> None:
    """Join the blocks' tables and write the first pictures and inversion.json."""
    folders = [block_folder(folder, k) for k in range(task.blocks)]
    skipped: dict[str, str] = {}
    tables = []
    for path in folders:
        check_folder(path, f"delete {path} and start the inversion again")
        skipped |= read_json(path / "skipped.json", sealed=True)
        if (path / "table.parquet").exists():  # not if no image of the block can be read
            tables.append(pd.read_parquet(path / "table.parquet"))
    if not tables:
        shutil.rmtree(folder)
        name, reason = next(iter(skipped.items()))
        raise BadFile(f"none of the {len(skipped)} images can be read; {name}: {reason}")
    pd.concat(tables, ignore_index=True).to_parquet(folder / "table.parquet")
    parts = [
        load_file(file) for path in folders if (file := path / "pictures.safetensors").exists()
    ]
    empty = torch.empty(0, 0, 0, 0, dtype=torch.uint8)
    save_file(
        {
            name: torch.cat([part[name] for part in parts]) if parts else empty
            for name in ("original", "reconstruction")
        },
        folder / "pictures.safetensors",
    )
    sums = {
        str(file.relative_to(folder)): file_sha256(file)
        for path in folders
        for file in sorted(path.glob("*.safetensors"))
    } | {name: file_sha256(folder / name) for name in ("table.parquet", "pictures.safetensors")}
    attributes: Attributes = task.networks.judge.attributes
    write_json(
        folder / "inversion.json",
        {
            "version": VERSION,
            "id": task.id,
            "images": task.images.about,
            "identity": task.images.identity,
            "spec": asdict(task.spec),
            "space": task.spec.space,
            "block": task.block,
            "perceptual": task.perceptual.about,
            "attributes": attributes.as_config(),
            "skipped": skipped,
            "sha256": sums,
        }
        | {role: network.digest for role, network in vars(task.networks).items()},
    )
