"""`editbench list`: what there is to choose from, a line each."""

from __future__ import annotations

import argparse

from editbench.base.conf import CONF, group_options, groups
from editbench.base.errors import EditbenchError, UnknownName
from editbench.run.compose import compose_config
from editbench.run.loading import load_networks

EXAMPLES = """examples:
  editbench list                     everything
  editbench list methods             one kind
  editbench list attributes --scorer mnist_lenet --generator mnist_mlp
"""


def main(argv: list[str]) -> int:
    kinds = {f"{group}s": group for group in groups()}
    parser = argparse.ArgumentParser(
        "editbench list",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", nargs="?", help=", ".join([*kinds, "attributes"]))
    parser.add_argument("--generator", default="faces32")
    parser.add_argument("--scorer", default="faces")
    parser.add_argument("--data", default="../shared/data", help="folder of third-party inputs")
    args = parser.parse_args(argv)
    if args.kind is not None and args.kind not in [*kinds, "attributes"]:
        raise UnknownName("kind", args.kind, [*kinds, "attributes"])
    for title, group in kinds.items():
        if args.kind in (None, title):
            print(f"{title} ({group}=NAME)")
            for name, config in group_options(group).items():
                print(f"  {name:26} {config.get('about') or headline(group, name)}")
    if args.kind in (None, "attributes"):
        list_attributes(args.generator, args.scorer, args.data)
    return 0


def headline(group: str, name: str) -> str:
    """First comment of an option's YAML that is not for Hydra."""
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    return next(
        (line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), ""
    )


def list_attributes(generator: str, scorer: str, data: str) -> None:
    print(f"attributes of scorer {scorer} (attribute=NAME)")
    try:
        cfg = compose_config([f"generator={generator}", f"scorer={scorer}", f"data={data}"])
        attributes = load_networks(cfg).judge.attributes
    except UnknownName:
        raise
    except EditbenchError as error:
        print(f"  not available: {error}")
        return
    for attribute in attributes:
        print(
            f"  {attribute.name:26} {', '.join(attribute.classes)}{' (ordered)' if attribute.ordered else ''}"
        )
