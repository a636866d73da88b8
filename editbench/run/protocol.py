"""Checks of a job's evaluated attributes, and of the number of its starts.

Both are known before a bank is built: the attributes from the scorer, the size of the test split
from the bank's options.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from editbench.bank.bank import read_spec
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, UnknownName
from editbench.networks.registry import require_files
from editbench.networks.scorer import Scorer
from editbench.run.settings import Settings, check_file_name


def check_protocol(settings: Settings, attributes: Attributes) -> list[str]:
    """Check the settings against the scorer's attributes. No bank is built.

    Args:
        settings: of a job.
        attributes: of its scorer, all of them.

    Returns:
        Names of the evaluated attributes, in the scorer's order.

    Raises:
        UnknownName: no such attribute or class.
        EditbenchError: the job's attribute is not evaluated, or there are fewer samples than starts.
    """
    target_class(settings, attributes)
    return check_evaluated(settings, attributes)


def check_evaluated(settings: Settings, attributes: Attributes) -> list[str]:
    """`check_protocol` without the target class, which sweeps give to attributes of other classes.

    Args:
        settings: of a job.
        attributes: of its scorer, all of them.

    Returns:
        Names of the evaluated attributes, in the scorer's order.

    Raises:
        UnknownName: the scorer lacks an evaluated attribute.
        EditbenchError: the job's attribute is not evaluated or cannot be part of a file's name, or
            there are fewer samples than starts.
    """
    names = evaluated_names(settings, attributes)
    if settings.attribute not in names:
        raise EditbenchError(
            f"attribute={settings.attribute} is not evaluated, evaluated=[{','.join(names)}]: edit "
            "one of these, or add it to the list"
        )
    check_file_name("attribute", settings.attribute, "change its name in the scorer's YAML")
    # Starts are dealt in turn, so the last attributes get none of a small draw.
    if not settings.starts.counts(len(names))[names.index(settings.attribute)]:
        raise EditbenchError(
            f"no start was drawn for {settings.attribute}: raise starts.n={settings.starts.n}"
        )
    check_starts(settings, len(names))
    return names


def evaluated_names(settings: Settings, attributes: Attributes) -> list[str]:
    """The evaluated attributes in the scorer's order.

    Args:
        settings: of a job.
        attributes: of its scorer, all of them.

    Raises:
        UnknownName: the scorer lacks one, with the nearest name.
    """
    if settings.evaluated is None:
        return list(attributes.names)
    for name in settings.evaluated:
        if name not in attributes.names:
            raise UnknownName("attribute in 'evaluated'", name, attributes.names)
    return list(attributes.select(settings.evaluated).names)


def target_class(settings: Settings, attributes: Attributes) -> int | None:
    """The target class of every start, as an index; None if it is drawn for each start.

    Args:
        settings: of a job; the target may be the name or the index of a class.
        attributes: of its scorer.

    Raises:
        UnknownName: there is no such attribute or class.
        EditbenchError: the index is out of range.
    """
    attributes[settings.attribute]  # raises UnknownName
    if settings.target is None:
        return None
    return attributes.class_index(settings.attribute, settings.target)


def with_named_target(settings: Settings, attributes: Attributes) -> Settings:
    """The same job with the target class given by name, since it may be given by index.

    Args:
        settings: of a job.
        attributes: of its scorer.

    Raises:
        UnknownName: there is no such attribute or class.
        EditbenchError: the index is out of range.
    """
    chosen = target_class(settings, attributes)
    if chosen is None:
        return settings
    return settings.with_values(target=attributes[settings.attribute].classes[chosen])


def check_starts(settings: Settings, evaluated: int) -> None:
    """Check that the test split has enough samples for the starts.

    Inverted images are not checked, since their number is not known yet.

    Args:
        settings: of a job.
        evaluated: number of evaluated attributes.

    Raises:
        EditbenchError: a pool is smaller than what is drawn from it.
    """
    if not settings.inversion.is_none:
        return
    spec = settings.bank.spec
    if settings.bank.path is not None:
        spec = read_spec(settings.bank.path)
    first, last = spec.split("test")
    settings.starts.check_enough(last - first, evaluated, f"the test split of bank.n={spec.n}")


def check_protocols(jobs: Iterable[Settings]) -> None:
    """`check_evaluated` for the jobs of a sweep, once before the first job.

    In a sweep over scorers an attribute may exist in only one of them, and in a sweep over
    attributes a target may be a class of only one. A word is therefore wrong only if it is valid in
    no job; otherwise single jobs fail by themselves.

    What cannot be checked here, such as a scorer whose file is on the machine that runs the jobs,
    is left to the jobs.

    Raises:
        UnknownName: an evaluated attribute that the scorer lacks; an attribute that every scorer of
            the sweep lacks; a target that is a class of none of its attributes.
        EditbenchError: an attribute is not evaluated, or there are fewer samples than starts.
    """
    found: dict[str, Attributes | None] = {}  # by the scorer's configuration
    # Words are (key, value).
    serving: set[tuple[str, object]] = set()
    unknown: dict[tuple[str, object], UnknownName] = {}
    for settings in jobs:
        key = json.dumps(settings.scorer.judge.config, sort_keys=True, default=str)
        if key not in found:
            found[key] = _scored_by(settings)
        attributes = found[key]
        attribute = ("attribute", settings.attribute)
        target = ("target", settings.target)
        if attributes is None:
            serving |= {attribute, target}  # perhaps
            continue
        try:
            attributes[settings.attribute]
        except UnknownName as error:
            unknown[attribute] = error
            continue
        serving.add(attribute)
        check_evaluated(settings, attributes)
        try:
            target_class(settings, attributes)
        except UnknownName as error:
            unknown[target] = error
        except EditbenchError:
            serving.add(target)  # an index out of range is no name: the job's own error
        else:
            serving.add(target)
    for word, reason in unknown.items():
        if word not in serving:
            raise reason


def _scored_by(settings: Settings) -> Attributes | None:
    """The judge's attributes; None if the judge cannot be built here."""
    try:
        require_files(settings.plain)  # with offline=true nothing is downloaded for this check
        judge: Scorer = settings.scorer.judge.build()
    except EditbenchError:
        return None
    return judge.attributes
