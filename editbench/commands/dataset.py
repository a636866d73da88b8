"""Pack your own images for training, or describe a packed data set."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.commands.options import CommandParser, add_subcommand
from editbench.commands.world_data import add_data_arguments, reading

EXAMPLES = """examples:
  editbench dataset pack photos --resolution 64 --out photos64
  editbench dataset pack img_align_celeba --labels list_attr_celeba.txt --resolution 128 \\
      --out celeba128
  editbench dataset pack photos --labels labels.csv --attributes smile age --bins 5 \\
      --resolution 64 --out photos64
  editbench dataset pack pets --labels folders --resolution 64 --out pets64
  editbench dataset pack mpi3d_toy.npz --out mpi3d       seven factors, 64 x 64
  editbench dataset pack shapes3d.yaml --out shapes3d    other arrays, declared in a YAML file
  editbench dataset info mpi3d

If packing is stopped, the same command resumes it. docs/datasets.md describes the formats of
labels and of the YAML file.
"""

LEFT_OUT = (
    "broken",
    "not listed",
    "with a missing label",
    "with an unspecified label",
    "listed without file",
    "columns of one value",
)


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench dataset",
        description=__doc__,
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(title="subcommands", required=True, metavar="COMMAND")
    about = "pack images and labels into shards for training"
    pack = add_subcommand(commands, "editbench dataset pack", about, EXAMPLES)
    pack.add_argument(
        "source", type=Path, help="image folder, .npz, or a .yaml that declares an .npz"
    )
    pack.add_argument(
        "--out", type=usable_folder, required=True, help="folder of the packed data set"
    )
    # A data set is packed at the resolution of the training.
    pack.add_argument(
        "--resolution",
        type=int,
        default=None,
        help="height and width (default for an .npz: its own)",
    )
    add_data_arguments(pack, to_train=False)
    pack.set_defaults(run=_pack)
    about = "verify a packed data set and describe it"
    info = add_subcommand(commands, "editbench dataset info", about, EXAMPLES)
    info.add_argument("folder", type=Path, help="of the packed data set")
    info.set_defaults(run=_info)
    args = parser.parse_args(argv)
    return args.run(args)


def _pack(args: argparse.Namespace) -> int:
    # Imported here, so that --help is instant.
    from editbench.worlds.datasets.opening import describe, open_source
    from editbench.worlds.datasets.pack import pack
    from editbench.worlds.datasets.packed import PROBLEMS

    # For arrays, attributes are chosen when training. For a folder, a table of labels may have
    # columns that are no labels, so they are chosen here.
    if not args.source.is_dir() and (args.attributes, args.bins) != (None, None):
        raise EditbenchError(
            "arrays are packed with all their labels: use --attributes and --bins when training instead"
        )
    # Including the scan of the folder, which may be the longer part on a network disk.
    began = time.perf_counter()
    source = open_source(args.source, reading(args))
    data = pack(source, args.out, args.resolution, args.max_broken)
    print(f"{args.out}: {describe(data)} in {time.perf_counter() - began:.1f} s")
    left_out = sum(data.counts.get(key, 0) for key in LEFT_OUT)
    if left_out:
        entries = "1 entry was" if left_out == 1 else f"{left_out} entries were"
        print(f"{entries} left out, each with its reason in {args.out / PROBLEMS}")
    return 0


def _info(args: argparse.Namespace) -> int:
    # Imported here, so that --help is instant.
    from editbench.worlds.datasets.opening import describe
    from editbench.worlds.datasets.packed import Packed

    data = Packed(args.folder)
    # Verified first, since a damaged file could make every number wrong.
    data.verify()
    print(f"{args.folder}: {describe(data)}, digest {data.digest}, checksums correct")
    for name, shares in data.class_shares().items():
        print(f"  {name}: " + ", ".join(f"{label} {share:.3f}" for label, share in shares.items()))
    return 0
