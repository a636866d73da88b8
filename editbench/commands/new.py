"""Write a template for an editor, a metric, a world or a scorer of your own."""

from __future__ import annotations

import keyword
import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from editbench.base.conf import option_names
from editbench.base.errors import EditbenchError
from editbench.base.files import write_atomic
from editbench.commands.options import CommandParser

EXAMPLES = """examples:
  editbench new editor my_editor           my_editor.py, my_conf/method/my_editor.yaml, test_my_editor.py
  editbench new metric my_metric           with a figure for the report
  editbench new world my_world             a generator with its teacher and its judge
  editbench new scorer my_scorer           a teacher and a judge of images
  editbench new editor my_editor --config-dir conf --folder work

The files work as generated: each is a small example to change, with the contract in its comments.
Existing files are not overwritten. The test needs pytest (pip install pytest).
"""
EXAMPLE_CONF = "my_conf"  # the configuration folder of the examples


@dataclass(frozen=True)
class Template:
    """A kind of template.

    Args:
        example: name of the example that is copied.
        groups: groups of the configuration for which it has a YAML file.
        next_steps: commands to try, with the placeholders {name} and {conf}.
    """

    example: str
    groups: tuple[str, ...]
    next_steps: tuple[str, ...]


KINDS = {
    "editor": Template(
        "mean_difference",
        ("method",),
        (
            "editbench conform {name}.py",
            "editbench run --config-dir {conf} -m method={name},random attribute=smile budget=demo",
            "editbench demo --config-dir {conf}",
        ),
    ),
    "metric": Template(
        "steps_to_crossing",
        ("metric",),
        (
            "editbench conform {name}.py",
            "editbench run --config-dir {conf} method=random attribute=smile budget=demo "
            "'metric=[crossing_accuracy,{name}]'",
        ),
    ),
    "world": Template(
        "colour_patches",
        ("generator", "scorer"),
        (
            "editbench list attributes --config-dir {conf} --generator {name} --scorer {name}",
            "editbench run --config-dir {conf} generator={name} scorer={name} attribute=bright "
            "method=interfacegan budget=demo",
        ),
    ),
    "scorer": Template(
        "bright_and_warm",
        ("scorer",),
        (
            "editbench scorer check {conf}/scorer/{name}.yaml",
            "editbench run --config-dir {conf} scorer={name} attribute=bright method=interfacegan "
            "budget=demo",
        ),
    ),
}


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench new",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("kind", choices=KINDS, help="what to make")
    parser.add_argument("name", help="a Python name, such as my_editor")
    parser.add_argument(
        "--folder", type=Path, default=Path("."), help="where the files go (default: here)"
    )
    parser.add_argument(
        "--config-dir",
        default=EXAMPLE_CONF,
        metavar="FOLDER",
        help=f"configuration folder, inside --folder (default: {EXAMPLE_CONF})",
    )
    args = parser.parse_args(argv)
    kind = KINDS[args.kind]
    check_name(args.name, kind)
    texts = written(kind, args.name, args.config_dir)
    taken = [args.folder / place for place in texts if (args.folder / place).exists()]
    if taken:
        raise EditbenchError(
            f"nothing was written, since these exist: {', '.join(map(str, taken))}; choose another "
            "name, or remove them"
        )
    for place, text in texts.items():
        path = args.folder / place
        write_atomic(path, text)
        print(f"wrote {path}")
    print("try")
    if args.folder != Path("."):
        print(f"  cd {shlex.quote(str(args.folder))}")
    for step in (f"python -m pytest test_{args.name}.py", *kind.next_steps):
        print("  " + step.format(name=args.name, conf=shlex.quote(args.config_dir)))
    return 0


def check_name(name: str, kind: Template) -> None:
    """Check that a name can be that of a module and of an option.

    Args:
        name: of the module and of its options.
        kind: gives the groups in which it becomes an option.

    Raises:
        EditbenchError: it is not a Python name in small letters a to z, or another option or an
            installed module has it.
    """
    # `isidentifier` accepts Python's keywords.
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    # Python accepts letters that Hydra does not accept in names of options.
    if not is_name or not name.isascii() or name != name.lower():
        raise EditbenchError(
            f"{name} must be a Python name in small letters a to z, such as my_editor"
        )
    # Names such as _1 and none would give the classes 1 and None.
    made = class_name(name)
    if not made.isidentifier() or keyword.iskeyword(made):
        raise EditbenchError(
            f"{name} gives no name of a class ({made or 'nothing is left'}): choose another name, "
            "such as my_editor"
        )
    for group in kind.groups:
        if name in option_names(group):
            raise EditbenchError(
                f"{name} is already the name of an option of {group}: choose another name"
            )
    if name == "__main__":  # the running program, of which Python finds no file
        raise EditbenchError(
            f"{name} is the name of the running program in Python: choose another name"
        )
    spec = find_spec(name)
    # A module in the current folder is not meant here: existing files are found one by one.
    if spec is not None and Path(spec.origin or "").parent != Path.cwd():
        raise EditbenchError(
            f"{name} is the name of an installed module, which Python would import instead: choose "
            "another name"
        )


def written(kind: Template, name: str, conf: str = EXAMPLE_CONF) -> dict[str, str]:
    """The files to write: path -> text.

    Args:
        kind: of template.
        name: of the module and of the option.
        conf: name of the configuration folder.
    """
    example = kind.example
    sources = [f"{example}.py", f"test_{example}.py"]
    sources += [f"{EXAMPLE_CONF}/{group}/{example}.yaml" for group in kind.groups]
    folder = files("editbench.examples")
    new = {example: name, class_name(example): class_name(name), EXAMPLE_CONF: conf}
    # Replaced in one pass, since a new name may contain an old one.
    old = re.compile("|".join(map(re.escape, new)))

    def renamed(text: str) -> str:
        return old.sub(lambda found: new[found[0]], text)

    texts: dict[str, str] = {}
    for source in sources:
        place = folder.joinpath(*source.split("/"))
        texts[renamed(source)] = renamed(place.read_text(encoding="utf-8"))
    return texts


def class_name(name: str) -> str:
    """'mean_difference' -> 'MeanDifference'."""
    return "".join(word.capitalize() for word in name.split("_"))
