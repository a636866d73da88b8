"""`editbench list`: what there is to choose from, a line each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from editbench.base.conf import CONF, group_options, groups
from editbench.base.errors import EditbenchError, UnknownName
from editbench.run.remembered import keep, recall

EXAMPLES = """examples:
  editbench list                     everything
  editbench list methods             one kind
  editbench list attributes --scorer mnist_lenet --generator mnist_mlp
  editbench list layers --generator digiface      for method.layer
"""
# Kinds that are no groups: the networks say which there are.
ATTRIBUTES = "attributes"
LAYERS = "layers"


def main(argv: list[str]) -> int:
    kinds = {f"{group}s": group for group in groups()}
    known = [*kinds, ATTRIBUTES, LAYERS]
    parser = argparse.ArgumentParser(
        "editbench list",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", nargs="?", help=", ".join(known))
    parser.add_argument(
        "overrides", nargs="*", help="of layers: key=value, as generator.weights=FILE"
    )
    parser.add_argument("--generator", default="faces32")
    parser.add_argument("--scorer", default="faces")
    parser.add_argument("--data", default="../shared/data", help="folder of third-party inputs")
    args = parser.parse_args(argv)
    if args.kind is not None and args.kind not in known:
        raise UnknownName("kind", args.kind, known)
    for title, group in kinds.items():
        if args.kind in (None, title):
            print_group(title, group)
    if args.kind in (None, ATTRIBUTES):
        print_attributes(args.generator, args.scorer, args.data)
    if args.kind == LAYERS:
        print_layers(args.generator, args.data, args.overrides)
    return 0


def print_group(title: str, group: str) -> None:
    """The options of a group, by the `about` of their YAML or its first comment."""
    print(f"{title} ({group}=NAME)")
    for name, config in group_options(group).items():
        print(f"  {name:26} {config.get('about') or headline(group, name)}")


def headline(group: str, name: str) -> str:
    """First comment of an option's YAML that is not for Hydra; '' where there is none."""
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#") and "@package" not in line:
            return line[1:].strip()
    return ""


def print_attributes(generator: str, scorer: str, data: str) -> None:
    """The attributes of a scorer and their classes."""
    print(f"attributes of scorer {scorer} (attribute=NAME)")
    try:
        attributes = find_attributes([f"generator={generator}", f"scorer={scorer}", f"data={data}"])
    except UnknownName:
        raise  # a wrong name on the command line
    except EditbenchError as error:  # third-party data that is not here
        print(f"  not available: {error}")
        return
    for attribute in attributes:
        ordered = " (ordered)" if attribute["ordered"] else ""
        print(f"  {attribute['name']:26} {', '.join(attribute['classes'])}{ordered}")


def find_attributes(words: Sequence[str]) -> list[dict[str, Any]]:
    """The attributes of the judge: name, classes, and whether they are ordered.

    Args:
        words: overrides that choose the networks.
    """
    question = ["attributes", *words]
    kept = recall(question)
    if kept is not None:
        return kept
    # Imported here: torch takes seconds, and the other kinds are read from YAML alone.
    from editbench.run.compose import compose_settings
    from editbench.run.loading import load_networks

    settings = compose_settings(words)
    attributes = load_networks(settings).judge.attributes.as_config()
    keep(question, attributes, [settings.plain])
    return attributes


def print_layers(generator: str, data: str, overrides: list[str]) -> None:
    """The layers of a generator by the names that methods take, and the weights among them."""
    from editbench.base.instantiate import build
    from editbench.run.compose import compose_settings

    words = [f"generator={generator}", f"data={data}", *overrides]
    found = build(compose_settings(words).generator.config)
    kernels = found.kernels()
    print(f"layers of generator {generator} (method.layer=NAME)")
    for name in found.layers():
        shape = ""
        if name in kernels:
            shape = f"weight {' x '.join(map(str, kernels[name].shape))}"
        print(f"  {name:26} {shape}".rstrip())
