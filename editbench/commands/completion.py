"""Completion of the command line in a shell: commands, flags, options of groups, keys, attributes.

It runs at every press of TAB, so it only reads YAML files and composes no configuration. Hydra's
own completion does compose the configuration; it supports neither subcommands nor names of
attributes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from editbench.base.compute_options import PRECISIONS
from editbench.base.conf import (
    LABELS,
    default_option,
    groups,
    main_keys,
    option_file,
    option_names,
    read_yaml,
)
from editbench.base.errors import EditbenchError, UnknownName
from editbench.commands.command_line import CFG_KINDS, split_values
from editbench.commands.options import CONFIG_DIR

# The shell passes its line in variables of the environment, and reads one completion per line. Bash
# splits words at `=`, which would make `method=gr` three words.
SCRIPTS = {
    "bash": """_editbench_completion() {
    COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" editbench run -sc query=bash 2>/dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _editbench_completion editbench
""",
    "zsh": """autoload -Uz compinit bashcompinit && compinit && bashcompinit
_editbench_completion() {
    COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" editbench run -sc query=zsh 2>/dev/null))
}
complete -o nospace -o default -F _editbench_completion editbench
""",
    "fish": """complete -c editbench -a '(env COMP_LINE=(commandline -cp) editbench run -sc query=fish 2>/dev/null)'
""",
}
REMOVALS = {
    "bash": "complete -r editbench\nunset -f _editbench_completion\n",
    "zsh": "complete -r editbench\nunset -f _editbench_completion\n",
    "fish": "complete -c editbench -e\n",
}
# Commands that take overrides, and their flags if the command does not use argparse.
FLAGS = {
    "run": (
        "--multirun",
        "--config-dir",
        "--cfg",
        "--info",
        "--package",
        "--resolve",
        "--dry-run",
        "--help",
    ),
    "plan": ("--multirun", "--config-dir", "--json", "--help"),
    "bank": ("--parts", "--config-dir", "--help"),
    "atlas": (),
    "demo": (),
    "doctor": (),
    "invert": (),
    "scorer": (),
}
# Keys of an option's YAML that are not set on a command line.
NO_OPTIONS = ("defaults", *LABELS)
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm")
# Keys with few possible values.
VALUES = {
    "device": ("cpu", "cuda"),
    "precision": PRECISIONS,
    "offline": ("true", "false"),
    "save_codes": ("true", "false"),
    "starts.near": ("joint", "target", "any"),
    "hydra/launcher": LAUNCHERS,
}
# Groups whose YAML has keys of other groups: starts.n is in the YAML of the budget.
HOLDERS = ("budget",)


def shell_script(request: str) -> str:
    """The text that -sc prints.

    Args:
        request: 'install=SHELL', 'uninstall=SHELL' or 'query=SHELL'.

    Raises:
        EditbenchError: another request.
        UnknownName: another shell.
    """
    action, _, shell = request.partition("=")
    if action not in ("install", "uninstall", "query"):
        raise EditbenchError(
            f'-sc {request}: write -sc install=SHELL, as in eval "$(editbench run -sc install=bash)"'
        )
    if shell not in SCRIPTS:
        raise UnknownName("shell", shell, SCRIPTS)
    if action == "install":
        return SCRIPTS[shell]
    if action == "uninstall":
        return REMOVALS[shell]
    line = os.environ.get("COMP_LINE", "")
    point = int(os.environ.get("COMP_POINT") or len(line))
    return "".join(f"{word}\n" for word in complete_line(line[:point]))


def complete_line(line: str) -> list[str]:
    """All completions of the last word of a command line.

    Args:
        line: up to the cursor, beginning with the program.
    """
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark that is still open
        words = [word.lstrip("'\"") for word in line.split()]
    # A line that ends with a space begins a new word.
    word = ""
    if words and not line.endswith(" "):
        word = words.pop()
    if not words:
        return []
    return sorted(found for found in _candidates(words[1:], word) if found.startswith(word))


def _candidates(before: Sequence[str], word: str) -> Iterable[str]:
    """Possible words after some others. They need not begin with the given word."""
    # Imported here, since that module imports this one by name.
    from editbench.cli import COMMANDS

    if not before:
        return [f"{command} " for command in COMMANDS]
    command = before[0]
    if command == "new":
        from editbench.commands.new import KINDS

        return [] if len(before) > 1 else [f"{kind} " for kind in KINDS]
    if command == "list":
        return [*(f"{group}s" for group in groups()), "attributes", "layers"]
    if command not in FLAGS:
        return []  # the shell then completes names of files
    if word.startswith("-"):
        return FLAGS[command]
    if before[-1] in ("--cfg", "-c"):
        return CFG_KINDS
    if before[-1] in CONFIG_DIR:
        return []
    return _overrides(before[1:], word)


def _overrides(before: Sequence[str], word: str) -> Iterable[str]:
    """Completions of an override."""
    folders = _folders(before)
    key, equals, value = word.partition("=")
    bare = key.lstrip("+~")
    if not equals:
        prefix = key[: len(key) - len(bare)]
        return [f"{prefix}{name}" for name in _keys(before, bare, folders)]
    # In a list, the last name is completed, and no name is offered twice.
    cut = max(value.rfind(","), value.rfind("[")) + 1
    named = value[:cut].strip("[").split(",")
    known = _values(bare, before, folders)
    return [f"{key}={value[:cut]}{name}" for name in known if name not in named]


def _keys(before: Sequence[str], start: str, folders: Sequence[Path]) -> Iterable[str]:
    """Keys of the configuration, at the top or below the dotted key that the word begins with."""
    around, dot, _ = start.rpartition(".")
    if dot:
        return [f"{around}.{key}=" for key in _nested(around, before, folders)]
    names = [f"{name}=" for name in [*groups(), *main_keys(), "hydra/launcher"]]
    return [*names, "starts.", "engine.", *(f"{group}." for group in groups())]


def _nested(around: str, before: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Keys below a dotted key, as the YAML files of the chosen options have them."""
    group, *path = around.split(".")
    node: Any = _option(group, before, folders)
    if not node:  # no group, but perhaps a key that a budget sets
        for name in HOLDERS:
            node = node or _option(name, before, folders).get(group)
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return []
    return [str(key) for key in node if not str(key).startswith("_") and key not in NO_OPTIONS]


def _values(key: str, before: Sequence[str], folders: Sequence[Path]) -> Sequence[str]:
    """Values of a key, if they can be listed."""
    if key in groups():
        return option_names(key, folders)
    if key in ("attribute", "evaluated"):
        return _attributes(before, folders)
    return VALUES.get(key, ())


def _attributes(before: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The attributes of the chosen scorer, from its YAML or from its networks."""
    scorer = _option("scorer", before, folders)
    declared = (scorer.get("teacher") or {}).get("attributes")
    if declared:
        return [str(item["name"]) for item in declared]
    # The networks are loaded, which takes seconds, but the answer is cached.
    from editbench.commands.list import find_attributes, network_words

    words = network_words(_chosen("generator", before), _chosen("scorer", before))
    return [item["name"] for item in find_attributes(words, folders)]


def _option(group: str, before: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """The YAML of the chosen option of a group; empty if there is none."""
    name = _chosen(group, before)
    if group not in groups() or name not in option_names(group, folders):
        return {}
    return read_yaml(option_file(group, name, folders))


def _chosen(group: str, before: Sequence[str]) -> str:
    """The option of a group that the words choose, the first one of a list, or the default."""
    chosen = ""
    for word in before:
        key, _, value = word.partition("=")
        if key.lstrip("+") == group:
            chosen = value.strip("[]").split(",")[0]
    return chosen or default_option(group)


def _folders(before: Sequence[str]) -> list[Path]:
    """The folders that the words give with --config-dir."""
    found = []
    words = list(split_values(before, CONFIG_DIR))
    for flag, value in zip(words, words[1:]):
        if flag in CONFIG_DIR and Path(value).is_dir():
            found.append(Path(value))
    return found
