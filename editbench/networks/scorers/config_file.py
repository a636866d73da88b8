"""Reading the YAML file of a scorer outside of a run. Errors name file, role, key and remedy."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.base.conf import WORDING, option_file, option_names, unreadable, yaml_text
from editbench.base.errors import BadFile, EditbenchError, UnknownName, no_such
from editbench.base.instantiate import build
from editbench.base.validation import arguments_of, load_target
from editbench.networks.roles import ROLES
from editbench.networks.scorer import Scorer

# Allowed keys. Those of WORDING are for listings and reports.
TOP = ("name", *WORDING, *ROLES)


def scorer_file(name: str, more: Sequence[Path] = ()) -> Path:
    """A YAML file by its path, or by its name in the group `scorer`.

    Args:
        name: a path that ends with .yaml, or the name of an option.
        more: a user's own configuration folders.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise BadFile(
                f"{path}: {no_such('file', path)}; give the YAML that declares the scorer (see "
                "docs/scorers.md)"
            )
        return path
    options = option_names("scorer", more)
    if name not in options:
        raise UnknownName("scorer (or give a file FILE.yaml)", name, options)
    return option_file("scorer", name, more)


def read_scorers(path: Path, context: dict[str, Any]) -> dict[str, Scorer]:
    """Build the scorers of a YAML file.

    Args:
        path: of the YAML file.
        context: the composed configuration of a run, not resolved, for interpolations such as
            ${data} and ${scorer.teacher}.

    Returns:
        Role -> scorer for a file with `teacher` and `judge`; {"scorer": scorer} for a file that
        declares a single one.

    Raises:
        BadFile: the file is not YAML, or not a mapping.
        EditbenchError: anything in it is wrong; the message has file, role and key.
    """
    try:
        # Read by OmegaConf, as in a run, since it has its own rules for numbers in YAML.
        text = OmegaConf.to_container(OmegaConf.load(StringIO(yaml_text(path))))
    except yaml.YAMLError as error:
        raise unreadable(path, error) from error
    except OmegaConfBaseException as error:
        raise BadFile(f"{path}: not readable YAML: {error}") from error
    if not isinstance(text, dict):
        raise BadFile(
            f"{path}: must be a mapping with teacher: and judge:, but is a {type(text).__name__}"
        )
    # The YAML of a single network, without roles.
    single = "_target_" in text
    for key in text if not single else ():
        if key not in TOP:
            raise UnknownName(f"key of {path}", str(key), [*TOP, "_target_"])
    if not single and "teacher" not in text:
        raise EditbenchError(
            f"{path}: declares no teacher; write teacher: {{_target_: ...}}, and judge: (or "
            "judge: ${scorer.teacher})"
        )
    whole = OmegaConf.create({**context, "scorer": text})
    found: dict[str, Scorer] = {}
    configs: dict[str, Any] = {}
    # `judge: ${scorer.teacher}` gives equal configurations, for which one network is built.
    for role in ("scorer",) if single else ROLES:
        part = whole.scorer if single else whole.scorer.get(role)
        if part is None:
            continue
        where = str(path) if single else f"{path}: {role}"
        if not OmegaConf.is_config(part):
            raise EditbenchError(f"{where}: needs _target_: and its arguments, got '{part}'")
        try:
            config = OmegaConf.to_container(part, resolve=True)
        except OmegaConfBaseException as error:
            raise EditbenchError(f"{where}: {str(error).splitlines()[0]}") from error
        same = [name for name, other in configs.items() if other == config]
        found[role] = found[same[0]] if same else _build_scorer(config, where)
        configs[role] = config
    return found


def _build_scorer(config: Any, where: str) -> Scorer:
    """Build a scorer in evaluation mode from its plain configuration, without references.

    Errors begin with `where`, the file and the role.
    """
    if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
        raise EditbenchError(
            f"{where}: needs _target_: the dotted name of a scorer's class, e.g. "
            "editbench.networks.scorers.exported.FileScorer"
        )
    target = load_target(f"{where}._target_", config["_target_"])
    # A function as _target_ has no class with arguments to check.
    if inspect.isclass(target):
        known = keys_of(target)
        for key in config:
            if not str(key).startswith("_") and key not in (*known, "name", *WORDING):
                raise UnknownName(f"key of {where}", str(key), known)
        missing = [
            key
            for key, needed in known.items()
            if needed and config.get(key) is None and not (key == "input_size" and key in config)
        ]
        if missing:
            raise EditbenchError(f"{where}: lacks {', '.join(missing)} (see docs/scorers.md)")
    try:
        scorer = build(OmegaConf.create(config))
    except EditbenchError as error:
        raise EditbenchError(f"{where}: {error}") from error
    if not isinstance(scorer, Scorer):
        raise EditbenchError(
            f"{where}: {config['_target_']} gives a {type(scorer).__name__}, not a scorer"
        )
    return scorer.eval().requires_grad_(False)


def keys_of(cls: type) -> dict[str, bool]:
    """Argument -> whether it is required, for a class; includes its bases if it has **kwargs."""
    arguments, _ = arguments_of(cls)
    found = {name: item.default is item.empty for name, item in arguments.items()}
    # A scorer made from a file or a function has no argument `network`.
    if "path" in found or "function" in found:
        for key in ("network", "weights", "source"):
            found.pop(key, None)
    return found
