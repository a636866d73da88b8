"""Values of a configuration that are wrong: an error in one line with key, value and remedy."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from editbench.base import user_code
from editbench.base.errors import EditbenchError, UnknownName, at_line, frames_of, one_line

# Kind of a plain value -> the types that it may have, and the words of the message.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "bool": ((bool,), "true or false"),
}
# Words that are no text without quotes.
NO_TEXT = ("", "null", "true", "false")
# Keys of a component that Hydra's `instantiate` reads itself; all begin like this.
HYDRA_PREFIX = "_"


def check_kind(key: str, value: object, kind: str, example: object = None) -> None:
    """Refuse a value of another kind than `kind`. A bool is no number.

    Args:
        key: dotted name of the value, for the message.
        value: of the configuration.
        kind: 'int', 'float', 'str' or 'bool'.
        example: a right value, for the message; None shows none.

    Raises:
        EditbenchError: with key, value and what it must be.
    """
    types, words = KINDS[kind]
    is_bool_for_number = isinstance(value, bool) and kind != "bool"
    if isinstance(value, types) and not is_bool_for_number:
        return
    raise EditbenchError(f"{key}={in_yaml(value)} must be {words}{_as_in(key, example)}")


def in_yaml(value: object) -> object:
    """A value as a message shows it: null, true and false as in YAML, and text in quotes where it
    would be read as one of these or as a number; other values as they are."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        is_number = False
    else:
        is_number = True
    return repr(value) if is_number or value.lower() in NO_TEXT else value


def _as_in(key: str, example: object) -> str:
    if example is None:
        return ""
    return f", as in {key}={in_yaml(example)}"


def check_fields(group: str, spec: Any) -> None:
    """`check_kind` for every field of a dataclass of plain values; `KIND | None` allows None.

    A field of two kinds is its dataclass's own to check.
    """
    for item in fields(spec):
        # The default of a field is a right value to show; a field without one shows none.
        example = item.default
        if example is MISSING:
            example = None
        value = getattr(spec, item.name)
        kind, _, optional = str(item.type).partition(" | ")
        if (optional == "None" and value is None) or optional not in ("", "None"):
            continue
        check_kind(f"{group}.{item.name}", value, kind, example)


def check_at_least(key: str, value: float, least: float) -> None:
    """Refuse a number below `least`, NaN and infinity."""
    if not value >= least:  # also refuses NaN
        raise EditbenchError(f"{key}={value} must be at least {least}")
    _check_finite(key, value)


def check_positive(key: str, value: float) -> None:
    """Refuse a number that is not above 0, NaN and infinity."""
    if not value > 0:  # also refuses NaN
        raise EditbenchError(f"{key}={value} must be positive")
    _check_finite(key, value)


def _check_finite(key: str, value: float) -> None:
    if value == math.inf:
        raise EditbenchError(f"{key}={value} must be finite")


def check_multiple(key: str, value: float, of: str, part: float) -> None:
    """Refuse a number that is no whole multiple of another one.

    Args:
        key: name of the value, for the message.
        value: that is checked.
        of: name of the other one.
        part: the other one, positive.
    """
    times = round(value / part)
    # Of numbers such as 0.3 and 0.1 the quotient is off by rounding.
    if abs(value / part - times) > 1e-9 * max(times, 1):
        raise EditbenchError(
            f"{key}={value} must be a multiple of {of}={part}, such as {times * part:g}"
        )


def near_powers_of_two(value: int, least: int) -> str:
    """The powers of two on both sides of a size that is none, for a message: '32 or 64'.

    Args:
        value: the size.
        least: smallest power that will do, itself a power of two.
    """
    above = least
    while above < value:
        above *= 2
    below = above // 2
    return f"{below} or {above}" if below >= least else str(above)


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is not among `choices`."""
    known = list(choices)
    if value not in known:
        raise EditbenchError(f"{key}={in_yaml(value)} must be one of {', '.join(known)}")


def check_attributes(key: str, named: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is no attribute, where an option names attributes.

    A misspelt one would have no effect, and nobody would see it.

    Args:
        key: dotted name of the option, for the message.
        named: the names that it has.
        known: the attributes.

    Raises:
        UnknownName: one is no attribute, with the nearest one.
    """
    known = list(known)
    for name in named:
        if name not in known:
            raise UnknownName(f"attribute in {key}", str(name), known)


def check_options(key: str, target: str, options: Mapping[str, Any]) -> None:
    """Compare the options of a component with the arguments of what `_target_` names.

    Nothing is built. Only arguments that are annotated with plain types (int, float, str, bool, or
    None) are compared by kind; the others are left to the constructor.

    Args:
        key: where the component stands in the configuration, such as 'method'.
        target: dotted name of a class or a function.
        options: its keyword arguments.

    Raises:
        UnknownName: an option that is no argument, with the nearest one.
        EditbenchError: `target` cannot be imported, an argument is missing, or a value has another
            kind than the argument's annotation.
    """
    known, takes_any = arguments_of(load_target(key, target))
    for name, value in options.items():
        if name.startswith(HYDRA_PREFIX):
            continue
        if name in known:
            _check_annotated(f"{key}.{name}", value, known[name])
        elif not takes_any:
            raise UnknownName(f"option of '{key}'", name, known)
    for name, argument in known.items():
        if argument.default is argument.empty and name not in options:
            raise EditbenchError(f"{key}: {target} needs the option {name}: set {key}.{name}=...")


def load_target(key: str, target: str) -> Callable[..., Any]:
    """The class or function of a dotted name. EditbenchError where it cannot be imported."""
    try:
        return _imported(target)
    except (Exception, SystemExit) as error:  # importing somebody's module may raise anything
        reason = f"{one_line(error)}{_place(error)}"
        remedy = user_code.hint(target)
        raise EditbenchError(
            f"{key}._target_={target} cannot be imported: {reason}{remedy}"
        ) from error


def _imported(target: str) -> Any:
    """What a dotted name stands for, with the error of the module that cannot be imported. Hydra's
    `get_object` prints it in lines of its own."""
    words = target.split(".")
    found: Any = importlib.import_module(words[0])
    for count, word in enumerate(words[1:], 2):
        # Of a package a module that nobody has imported yet; of anything else an attribute.
        if not hasattr(found, word) and hasattr(found, "__path__"):
            importlib.import_module(".".join(words[:count]))
        found = getattr(found, word)
    return found


def _place(error: BaseException) -> str:
    """The line of somebody's module that raised an error, in brackets; '' where none did."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    # The last one: a module may import another of somebody's, which fails.
    own = frames_of(error, user_code.is_users_file)
    return at_line(own[-1]) if own else ""


def arguments_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a class or function, and whether it takes any others.

    A class whose `__init__` has **kwargs hands them to its bases, so theirs count as well.
    """
    callables: list[Callable[..., Any]] = [target]
    if inspect.isclass(target):
        # `object.__init__` has a signature that takes anything, and takes nothing.
        bases = [base for base in target.__mro__ if base is not object]
        callables = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for function in callables:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a builtin without a signature
            return found, True
        if inspect.isclass(target):
            parameters = parameters[1:]  # without self
        passes_on = False
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                if function is not callables[0]:
                    # The class itself may give its base this argument, so nobody has to.
                    parameter = parameter.replace(default=None)
                found.setdefault(parameter.name, parameter)
            elif parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
        if not passes_on:
            return found, False
        if function is callables[-1]:
            return found, True
    return found, False


def _check_annotated(key: str, value: object, argument: inspect.Parameter) -> None:
    annotation = argument.annotation
    # Annotations are text where the module has `from __future__ import annotations`. They are not
    # evaluated: the names of plain types are all that is needed.
    text = str(annotation)
    if isinstance(annotation, type):  # str() of a type is "<class 'int'>"
        text = annotation.__name__
    names = text.replace(" ", "").split("|")
    kinds = [name for name in names if name != "None"]
    if not kinds or not set(kinds) <= set(KINDS):
        return  # a mapping, a list, a class: the constructor knows
    if value is None and "None" in names:
        return
    if isinstance(value, Mapping) and "_target_" in value:
        return  # an object that is built first
    for kind in kinds:
        try:
            check_kind(key, value, kind)
            return
        except EditbenchError:
            continue
    words = " or ".join(KINDS[kind][1] for kind in kinds)
    if "None" in names:
        words = f"{words} or null"
    example = argument.default
    if example is argument.empty:
        example = None
    raise EditbenchError(f"{key}={in_yaml(value)} must be {words}{_as_in(key, example)}")
