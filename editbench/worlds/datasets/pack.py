"""Packing: any source of pictures as shards of uint8 arrays.

Shards are written whole or not at all, and packing goes on where it stopped.

    OUT/pack.json            what is being packed, and how
    OUT/shard-00000/         images.npy (m, R, R, 3), kept.npy (m,) indices in the source,
                             shard.json
    OUT/labels.npy           (n, A) int64 class indices, where the source has labels
    OUT/problems.csv         file, problem: what was left out and why
    OUT/dataset.json         written last; a folder without it is not a data set yet

Equal sources give equal bytes, however often packing was stopped. Memory: one shard.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import shutil
from pathlib import Path

import numpy as np

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import (
    atomic_folder,
    compare_checksum,
    digest,
    explain_disk_errors,
    file_sha256,
    lock,
    read_json,
    sweep_partials,
    write_atomic,
    write_json,
)
from editbench.base.progress import progress
from editbench.worlds.datasets.packed import (
    DATASET,
    LABELS,
    PROBLEMS,
    VERSION,
    Packed,
    shard_folder,
)
from editbench.worlds.datasets.source import Source

SHARD_BYTES = 64 << 20
MAX_BROKEN = 0.1
SHOWN = 3


def pack(
    source: Source,
    out: Path,
    resolution: int | None = None,
    max_broken: float = MAX_BROKEN,
    shard_bytes: int = SHARD_BYTES,
) -> Packed:
    """Pack what is missing of a source into `out` and open it.

    Args:
        source: of the pictures.
        out: the folder.
        resolution: height and width; None takes the source's own, which a folder of images has not.
        max_broken: share of unreadable pictures above which the data set is refused.
        shard_bytes: size of a shard; a folder that was begun with another keeps its own.

    Raises:
        EditbenchError: `out` is of another source; the disk is too small.
        BadFile: too much of the source is broken.
    """
    resolution = resolution or source.resolution
    if resolution is None:
        raise EditbenchError("images of a folder may differ in size: give --resolution")
    if resolution < 4:
        raise EditbenchError(f"--resolution must be 4 or more, got {resolution}")
    if not 0 <= max_broken <= 1:
        raise EditbenchError(f"--max-broken must be a share between 0 and 1, got {max_broken}")
    rows = max(1, shard_bytes // (3 * resolution**2))
    about = {"version": VERSION, "source": digest(source.identity, 32), "resolution": resolution}
    # Two processes that pack the same data take turns; the second finds the work done.
    with explain_disk_errors(out), lock(out):
        begun: dict = about | {"shard": rows}
        if (out / "pack.json").exists():
            begun = read_json(out / "pack.json")
        if {key: begun.get(key) for key in about} != about:
            raise EditbenchError(
                f"{out} was packed from other files, labels or sizes: give another --out, "
                "or delete it"
            )
        # Shards must not be mixed with other files.
        if not (out / "pack.json").exists() and out.is_dir() and any(out.iterdir()):
            raise EditbenchError(f"{out} exists and is not a packed data set; give another --out")
        # The size of the existing shards is that of the others too.
        rows = begun["shard"]
        shards = math.ceil(len(source) / rows)
        missing = [k for k in range(shards) if not shard_folder(out, k).exists()]
        if missing or not (out / DATASET).exists():
            pictures = sum(min(rows, len(source) - k * rows) for k in missing)
            _check_disk(out, pictures * 3 * resolution**2)
            write_json(out / "pack.json", begun)
            _write_shards(source, out, resolution, rows, missing)
            _finish(source, out, resolution, shards, max_broken)
    return Packed(out)


def _check_disk(out: Path, need: int) -> None:
    free = shutil.disk_usage(out if out.exists() else out.parent).free
    if need > free:
        raise EditbenchError(
            f"{out}: {need / 1e9:.1f} GB are needed, but {free / 1e9:.1f} GB are free on that "
            "disk; free some, give a smaller --resolution or another --out"
        )


def _write_shards(
    source: Source, out: Path, resolution: int, rows: int, missing: list[int]
) -> None:
    """Write the missing shards in order."""
    pictures = sum(min(rows, len(source) - k * rows) for k in missing)
    try:
        with progress("pictures packed", pictures) as advance:
            for k in missing:
                start = k * rows
                stop = min((k + 1) * rows, len(source))
                block = source.read(start, stop, resolution)
                sweep_partials(shard_folder(out, k))
                with atomic_folder(shard_folder(out, k)) as partial:
                    np.save(partial / "images.npy", block.pixels)
                    np.save(partial / "kept.npy", block.kept)
                    about = {
                        "rows": len(block.kept),
                        "sha256": file_sha256(partial / "images.npy"),
                        "kept_sha256": file_sha256(partial / "kept.npy"),
                        "problems": block.problems,
                        "enlarged": block.enlarged,
                    }
                    write_json(partial / "shard.json", about)
                advance(stop - start)
    except BadFile:
        # Earlier pictures of a damaged source may be wrong too, so nothing is kept.
        for folder in out.glob("shard-*"):
            shutil.rmtree(folder, ignore_errors=True)
        (out / "pack.json").unlink(missing_ok=True)
        raise


def _finish(source: Source, out: Path, resolution: int, shards: int, max_broken: float) -> None:
    """Write the labels, the problems and last dataset.json, which makes it a data set."""
    parts = [read_json(shard_folder(out, k) / "shard.json") for k in range(shards)]
    broken = [tuple(problem) for part in parts for problem in part["problems"]]
    n = sum(part["rows"] for part in parts)
    _write_problems(out / PROBLEMS, [*broken, *source.problems])
    if n == 0 or len(broken) > max_broken * len(source):
        examples = "; ".join(f"{name}: {reason}" for name, reason in broken[:SHOWN])
        remedy = ""
        if n > 0:
            # Rounded up to a percent, so that the advice is enough.
            share = math.ceil(100 * len(broken) / len(source)) / 100
            remedy = f"; --max-broken {share} packs the rest"
        raise BadFile(
            f"{len(broken)} of {len(source)} pictures cannot be read, listed in {out / PROBLEMS} "
            f"({examples}){remedy}"
        )
    labels = source.labels()
    sums = [part["sha256"] for part in parts]
    if labels is not None:
        rows = []
        for k in range(shards):
            folder = shard_folder(out, k)
            # Other indices would give the pictures the labels of others.
            remedy = f"delete {folder} and start again: only this shard is packed again"
            compare_checksum(folder / "kept.npy", parts[k].get("kept_sha256", ""), remedy)
            rows.append(np.load(folder / "kept.npy", allow_pickle=False))
        kept = np.concatenate(rows)
        # In memory first, since the checksum is that of the written bytes.
        buffer = io.BytesIO()
        np.save(buffer, labels[kept])
        write_atomic(out / LABELS, buffer.getvalue())
        sums.append(hashlib.sha256(buffer.getvalue()).hexdigest())
    attributes = source.attributes.as_config() if source.attributes is not None else None
    counts = source.counts | {
        "packed": n,
        "broken": len(broken),
        "enlarged": sum(part["enlarged"] for part in parts),
    }
    # The identity of the data set in checkpoints and records.
    content = digest([attributes, resolution, sums], 16)
    write_json(
        out / DATASET,
        {
            "version": VERSION,
            "n": n,
            "resolution": resolution,
            "attributes": attributes,
            "counts": counts,
            "shards": [{"rows": part["rows"], "sha256": part["sha256"]} for part in parts],
            "labels_sha256": sums[-1] if labels is not None else None,
            "digest": content,
        },
    )


def _write_problems(path: Path, problems: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "problem"))
    # In the order of the source, so that equal sources give equal bytes.
    writer.writerows(problems)
    write_atomic(path, text.getvalue())
