"""Convert a StyleGAN2 or StyleGAN3 generator, or CelebA-HQ classifiers, to one safetensors file."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import explain_disk_errors
from editbench.base.progress import results_console
from editbench.commands.options import CommandParser, split_names
from editbench.networks.celebahq.network import CelebAHQClassifiers
from editbench.networks.celebahq.read import ReadClassifier, is_classifier, read_classifier
from editbench.networks.celebahq.store import (
    attribute_of,
    load_classifiers,
    save_classifiers,
    scorer_yaml,
)
from editbench.networks.checkpoints import CheckpointContent, assemble, read_content, source_of
from editbench.networks.checkpoints.converted import check_pictures, decode_probes, write_network
from editbench.networks.checkpoints.parity import BOUND, not_compared, parity, read_golden
from editbench.networks.stylegan import StyleNetwork
from editbench.run.option_files import shell_override

EPILOG = """reads, without running any code of the file:
  NVlabs' PyTorch pickles (stylegan2-ada-pytorch; stylegan3, configurations t and r)
  NVlabs' TensorFlow pickles (stylegan2, stylegan2-ada)
  rosinality's stylegan2-pytorch checkpoints
  state dicts in the names of NVlabs' PyTorch code or of rosinality, as .pt or .safetensors
  CelebA-HQ attribute classifiers: NVIDIA's celebahq-classifier-NN-NAME.pkl, and net_best.pth of
  authors who retrained them; many files become one scorer

examples:
  editbench convert ffhq.pkl --out ffhq.safetensors
  editbench convert 550000.pt --name g_ema --out church.safetensors
  editbench convert e4e_ffhq.pt --out ffhq.safetensors
  editbench convert celebahq-classifier-*.pkl --out celebahq.safetensors
  editbench run generator=stylegan2 generator.weights=ffhq.safetensors method=... scorer=...
"""


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_intermixed_args(argv)
    if args.out is not None and args.out.suffix != ".safetensors":
        raise EditbenchError(
            f"--out {args.out}: the output is a safetensors file, so the name must end in .safetensors"
        )
    # Overwriting the checkpoint would make another conversion impossible.
    if args.out is not None and args.out.resolve() in [file.resolve() for file in args.files]:
        raise EditbenchError(
            f"--out {args.out}: this is the checkpoint itself, which is not overwritten; give another name"
        )
    console = results_console()
    content = read_content(args.files[0])
    if is_classifier(content):
        convert_classifiers(console, args, content)
        return 0
    if len(args.files) > 1:
        raise EditbenchError(
            f"{args.files[0]}: not a CelebA-HQ classifier; only these are converted several at once, "
            "so give one file"
        )
    convert_generator(console, args, content)
    return 0


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench convert",
        description=__doc__,
        epilog=EPILOG,
    )
    parser.add_argument(
        "files",
        metavar="file",
        nargs="+",
        type=Path,
        help="the checkpoint: .pkl, .pt or .safetensors; several files for classifiers",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the .safetensors file to write; without it, the file is only read, "
        "decoded and described",
    )
    parser.add_argument(
        "--name",
        help="dotted name of the generator in the file (default: the only one, or "
        "the only one with averaged weights)",
    )
    parser.add_argument(
        "--mapping-lr",
        type=float,
        # The value of StyleGAN2 (Karras et al. 2020).
        default=0.01,
        help="learning-rate multiplier of the mapping, if the file lacks it",
    )
    parser.add_argument(
        "--conv-clamp",
        type=float,
        help="bound of the activations, if the file lacks it: "
        "256 for networks trained in half precision by NVlabs' code (default: none)",
    )
    parser.add_argument(
        "--golden",
        type=Path,
        help=".npz with outputs of the authors' code: print the parity table",
    )
    parser.add_argument(
        "--attributes",
        help="attributes of classifiers, comma-separated (default: from the file names)",
    )
    # Names may stand before and after the options, which parse_args does not allow.
    return parser


def convert_generator(console: Console, args: argparse.Namespace, content: object) -> None:
    """Convert the generator of a checkpoint, whose content was read.

    Args:
        console: to print the description to.
        args: of the command, with one file. Without `out`, nothing is written.
        content: of the file, from `read_content`.

    Raises:
        BadFile: the checkpoint cannot be converted, its images are implausible, or they differ from
            those of `args.golden`.
        EditbenchError: the file cannot be written.
    """
    file = args.files[0]
    # Each step checks what the next one relies on.
    source = source_of(file, content, args.name, args.mapping_lr, args.conv_clamp)
    network = assemble(source)
    console.print(describe_generator(source, network))
    images = decode_probes(network)
    console.print(statistics(images), markup=False)
    check_pictures(images, file)
    # Compared before anything is written.
    if args.golden is not None and not show_parity(console, network, args.golden):
        raise BadFile(
            f"{file}: differs from {args.golden} by more than {BOUND:g}; nothing is written"
        )
    if args.out is not None:
        write_network(args.out, source, network, images)
        _print_line(
            console,
            f"wrote {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB); read back, it gives the same "
            "images",
        )
        label = ""
        # A conditional generator cannot be built without a label.
        if source.config.c_dim:
            label = " generator.label=0"
        weights = shell_override("generator.weights", args.out)
        _print_line(
            console, f"use it: editbench run generator={network.kind} {weights}{label} scorer=..."
        )


# -- classifiers ----------------------------------------------------------------------------------
def convert_classifiers(console: Console, args: argparse.Namespace, content: object) -> None:
    """Convert CelebA-HQ classifiers into one file and the YAML of a scorer.

    Args:
        console: to print the description to.
        args: of the command. Without `out`, nothing is written.
        content: of the first file, from `read_content`.

    Raises:
        BadFile: a file is not a classifier.
        EditbenchError: an option is only for generators, the names of attributes do not fit the
            files, or the classifiers need images of different sizes.
    """
    for option in ("golden", "name"):
        if getattr(args, option) is not None:
            raise EditbenchError(
                f"--{option} is for generators, but {args.files[0]} is a CelebA-HQ classifier; leave "
                "it out"
            )
    found = [read_classifier(args.files[0], content)]
    for file in args.files[1:]:
        other = read_content(file)
        if not is_classifier(other):
            raise BadFile(
                f"{file}: not a CelebA-HQ classifier, unlike {args.files[0]}; leave it out"
            )
        found.append(read_classifier(file, other))
    names = [attribute_of(item.path) for item in found]
    if args.attributes is not None:
        names = split_names(args.attributes)
    # Files have the same name if they were trained by others, who call each net_best.pth.
    if len(set(names)) != len(found) or len(names) != len(found):
        raise EditbenchError(
            f"--attributes: {len(found)} different names are needed, one per file; got "
            f"{', '.join(names)}"
        )
    # Constructed only for its check that all classifiers accept the same images.
    CelebAHQClassifiers([item.network for item in found])
    console.print(describe_classifiers(found, names))
    if args.out is None:
        return
    with explain_disk_errors(args.out):
        save_classifiers(args.out, found, names)
    # Read back now, so that an unreadable file is found before the first run.
    load_classifiers(args.out)
    _print_line(console, f"wrote {args.out}, verified")
    yaml = args.out.with_suffix(".yaml")
    # An existing file is kept, since the user may have corrected the signs in it.
    if yaml.exists():
        _print_line(console, f"kept the existing {yaml}")
    else:
        with explain_disk_errors(yaml):
            yaml.write_text(scorer_yaml(yaml, args.out, found, names), encoding="utf-8")
        _print_line(console, f"wrote {yaml}, the scorer")
    _print_line(
        console, f"check it: editbench scorer check {shlex.quote(str(yaml))} --images PHOTOS"
    )


def describe_classifiers(found: list[ReadClassifier], names: list[str]) -> Table:
    """A table with one row per classifier.

    Args:
        found: the classifiers.
        names: their attributes, in the same order.
    """
    table = Table("attribute", "file", "format", "pixels", "halves by", "statistic", "noted")
    for item, name in zip(found, names):
        config = item.network.config
        table.add_row(
            escape(name),
            escape(item.path.name),
            item.format,
            str(config.resolution),
            "stride" if config.fused else "averages",
            "of one sample" if config.statistic else "none",
            ", ".join(f"{key} {value}" for key, value in item.notes),
        )
    return table


# -- output --------------------------------------------------------------------------------------
def _print_line(console: Console, text: str) -> None:
    """Print text that may be copied, such as a path: not wrapped, and without markup."""
    console.print(text, markup=False, soft_wrap=True)


def describe_generator(source: CheckpointContent, network: StyleNetwork) -> Table:
    """A table that describes the generator of a checkpoint.

    Args:
        source: the checkpoint. Values that it does not contain are marked as assumed.
        network: built from it.
    """
    config = source.config
    # Names of files may contain brackets, which rich would read as markup.
    table = Table(title=escape(source.path.name), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column()
    # Marked, since other values would change the images.
    guess = {name: " (assumed, since such a file does not contain it)" for name in source.assumed}
    size = config.resolution
    layers = len(network.synthesis.layers)
    rows = [
        ("format", source.format),
        ("image", f"{config.img_channels} x {size} x {size}"),
        (
            "architecture",
            f"{config.summary}, {layers} layers with styles, "
            f"{sum(len(affine.bias) for affine in network.synthesis.affines()):,} style channels",
        ),
        *config.facts().items(),
        ("z, w, w_plus", f"{config.z_dim}, {config.w_dim}, {config.num_ws} x {config.w_dim}"),
        (
            "mapping",
            f"{config.mapping_layers} layers, learning-rate multiplier {config.mapping_lr:g}"
            f"{guess.get('mapping_lr', '')}",
        ),
        (
            "label",
            f"{config.c_dim} values: choose a class with generator.label"
            if config.c_dim
            else "unconditional",
        ),
        (
            "clamp",
            ("none" if config.conv_clamp is None else f"{config.conv_clamp:g}")
            + guess.get("conv_clamp", ""),
        ),
        ("w_avg", f"norm {network.mapping.w_avg.norm().item():.3f}"),
        *source.notes,
        ("parameters", f"{sum(p.numel() for p in network.parameters()):,}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def statistics(images: torch.Tensor) -> str:
    """A line about the pixel values of decoded images (N, C, H, W)."""
    # For a sound network, few pixels are outside [-1, 1].
    outside = (images.abs() > 1).float().mean().item()
    return (
        f"decoded {len(images)} z: mean {images.mean().item():.3f}, std {images.std().item():.3f}, "
        "range "
        f"[{images.min().item():.2f}, {images.max().item():.2f}], {outside:.1%} outside [-1, 1]"
    )


def show_parity(console: Console, network: StyleNetwork, path: Path) -> bool:
    """Print how a network differs from the outputs of the authors' code.

    Args:
        console: to print the table to.
        network: built from the checkpoint.
        path: .npz file with the outputs.

    Returns:
        Whether all tensors agree to within BOUND of their standard deviation.

    Raises:
        BadFile: the file is of another network, or has nothing to compare.
    """
    golden = read_golden(path)
    try:
        rows = parity(network, golden)
    except BadFile as error:
        raise BadFile(f"{path}: {error}; see docs/checkpoints.md") from error
    if not rows:
        raise BadFile(
            f"{path}: nothing to compare among {', '.join(sorted(golden))}; see docs/checkpoints.md"
        )
    table = Table(
        "tensor",
        "shape",
        "std",
        "largest difference / std",
        title=f"parity with {escape(path.name)}",
        title_justify="left",
    )
    for row in rows:
        table.add_row(
            row.name,
            " x ".join(map(str, row.shape)),
            f"{row.std:.4f}",
            f"{row.error:.1e}" + ("" if row.good else " TOO LARGE"),
        )
    console.print(table)
    if others := not_compared(rows, golden):
        console.print(f"not compared: {', '.join(others)}", markup=False)
    return all(row.good for row in rows)
