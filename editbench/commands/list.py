"""List the available options, one per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editbench.base.conf import check_folders, describe_options, groups, quoted
from editbench.base.errors import EditbenchError, UnknownName
from editbench.commands.options import CommandParser, add_config_dir
from editbench.run.answer_cache import keep_answer, recall_answer
from editbench.run.option_files import name_files

EXAMPLES = """examples:
  editbench list                     everything
  editbench list methods             one kind
  editbench list attributes --scorer mnist_lenet --generator mnist_mlp
  editbench list layers --generator digiface      for method.layer
  editbench list methods --config-dir my_conf      including your own
"""
# Kinds that are no groups of the configuration, but properties of the networks.
ATTRIBUTES = "attributes"
LAYERS = "layers"


def main(argv: list[str]) -> int:
    kinds = {f"{group}s": group for group in groups()}
    known = [*kinds, ATTRIBUTES, LAYERS]
    parser = CommandParser(
        "editbench list",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("kind", nargs="?", help=", ".join(known))
    parser.add_argument(
        "overrides",
        nargs="*",
        help="of attributes and layers: key=value, as generator.weights=FILE",
    )
    parser.add_argument("--generator", default="faces32", help="whose layers are listed")
    parser.add_argument("--scorer", default="faces", help="whose attributes are listed")
    parser.add_argument(
        "--data", help="folder of third-party inputs (default: that of the configuration)"
    )
    add_config_dir(parser)
    args = parser.parse_intermixed_args(argv)
    check_folders(args.config_dir)
    if args.kind is not None and args.kind not in known:
        raise UnknownName("kind", args.kind, known)
    if args.overrides and args.kind not in (ATTRIBUTES, LAYERS):
        raise EditbenchError(
            f"{' '.join(args.overrides)}: overrides are only for {ATTRIBUTES} and {LAYERS}"
        )
    words = network_words(args.generator, args.scorer)
    if args.data is not None:
        words.append(f"data={quoted(args.data)}")
    words += args.overrides
    lines = []
    for title, group in kinds.items():
        if args.kind in (None, title):
            lines += group_lines(title, group, args.config_dir)
    if args.kind == ATTRIBUTES:
        lines += attribute_lines(words, args.config_dir)
    if args.kind is None:
        try:
            lines += attribute_lines(words, args.config_dir)
        except UnknownName:
            raise  # a wrong name on the command line
        except EditbenchError as error:  # such as missing third-party data
            lines += [attributes_title(words), f"  not available: {error}"]
    if args.kind == LAYERS:
        lines += layer_lines(words, args.config_dir)
    # Printed at the end, so that an error is not below a heading.
    print("\n".join(lines))
    return 0


def network_words(generator: str, scorer: str) -> list[str]:
    """The overrides that choose the networks, by their options."""
    return [f"generator={generator}", f"scorer={scorer}"]


def group_lines(title: str, group: str, more: Sequence[Path]) -> list[str]:
    """The options of a group, one per line.

    Args:
        title: heading, in the plural.
        group: name of the group.
        more: a user's own configuration folders, whose options are included.
    """
    lines = [f"{title} ({group}=NAME)"]
    for name, about in describe_options(group, more).items():
        lines.append(f"  {name:26} {about}")
    return lines


def _chosen(words: Sequence[str], group: str) -> str:
    """The option of a group that the words choose; the last word wins, as in Hydra."""
    return [word.partition("=")[2] for word in words if word.startswith(f"{group}=")][-1]


def attributes_title(words: Sequence[str]) -> str:
    """The heading of a scorer's attributes."""
    return f"attributes of scorer {_chosen(words, 'scorer')} (attribute=NAME)"


def attribute_lines(words: Sequence[str], more: Sequence[Path]) -> list[str]:
    """The attributes of a scorer and their classes, one per line.

    Args:
        words: overrides that choose the networks, including the scorer.
        more: a user's own configuration folders.

    Returns:
        A heading and the attributes.

    Raises:
        UnknownName: an override has a name that does not exist.
        EditbenchError: the scorer cannot be loaded.
    """
    lines = [attributes_title(words)]
    for attribute in find_attributes(words, more):
        ordered = " (ordered)" if attribute["ordered"] else ""
        lines.append(f"  {attribute['name']:26} {', '.join(attribute['classes'])}{ordered}")
    return lines


def find_attributes(words: Sequence[str], more: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """The attributes of the judge: name, classes, and whether they are ordered.

    Args:
        words: overrides that choose the networks.
        more: a user's own configuration folders.
    """
    words, more = name_files(words, more)
    question = [ATTRIBUTES, *words]
    # Changes in a user's own folders are not detected, so nothing is cached for them.
    kept = None if more else recall_answer(question)
    if kept is not None:
        return kept
    # Imported here, since torch takes seconds and the other kinds are read from YAML files.
    from editbench.run.compose import compose_settings
    from editbench.run.loading import load_networks

    settings = compose_settings(words, more)
    attributes = load_networks(settings).judge.attributes.as_config()
    if not more:
        keep_answer(question, attributes, [settings.plain])
    return attributes


def layer_lines(words: Sequence[str], more: Sequence[Path]) -> list[str]:
    """The layers of a generator, by the names that methods accept.

    Args:
        words: overrides that choose the networks, including the generator.
        more: a user's own configuration folders.

    Returns:
        A heading and one line per layer, with the shape of its weight if the weight can be shifted.
    """
    from editbench.run.compose import compose_settings
    from editbench.run.loading import load_network

    # Only the generator is built, since the scorers may need files that are missing.
    found = load_network("generator", compose_settings(words, more).generator.config, "cpu")
    kernels = found.kernels()
    lines = [f"layers of generator {_chosen(words, 'generator')} (method.layer=NAME)"]
    for name in found.layers():
        shape = ""
        if name in kernels:
            shape = f"weight {' x '.join(map(str, kernels[name].shape))}"
        lines.append(f"  {name:26} {shape}".rstrip())
    return lines
