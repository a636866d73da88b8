"""Checks of configuration values. An error has one line, with the key, the value and the remedy."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from editbench.base import user_code
from editbench.base.annotations import (
    annotation_text,
    in_words,
    is_understood,
    item_annotation,
    matches,
)
from editbench.base.errors import (
    EditbenchError,
    UnknownName,
    at_line,
    did_you_mean,
    frames_of,
    one_line,
)

# Words that YAML does not read as text unless they are quoted.
NO_TEXT = ("", "null", "true", "false")
# Prefix of the keys that Hydra's `instantiate` reads itself.
HYDRA_PREFIX = "_"


def check_kind(key: str, value: object, kind: str, example: object = None) -> None:
    """Check that a value is of a kind. A bool is not a number.

    Args:
        key: dotted name of the value, for the message.
        value: of the configuration.
        kind: an annotation as `editbench.base.annotations` understands it, such as 'int' or
            'list[str]|None'.
        example: a valid value, for the message; None for no example.

    Raises:
        EditbenchError: it is of another kind.
    """
    if matches(value, kind):
        return
    items = item_annotation(kind)
    if items is not None and isinstance(value, Mapping):
        # The message names only the items that are wrong.
        for name, item in value.items():
            check_kind(f"{key}.{name}", item, items)
    # An empty list or mapping shows nothing of its items.
    told = "" if example in (None, (), [], {}) else f", as in {key}={in_yaml(example)}"
    raise EditbenchError(f"{key}={in_yaml(value)} must be {in_words(kind)}{told}")


def in_yaml(value: object) -> object:
    """A value as messages show it.

    null, true, false and lists are written as in YAML. Text is quoted if it would be read as one of
    the three words or as a number. Other values are unchanged.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(str(in_yaml(item)) for item in value)}]"
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        is_number = False
    else:
        is_number = True
    return repr(value) if is_number or value.lower() in NO_TEXT else value


def check_fields(group: str, spec: Any) -> None:
    """Apply `check_kind` to every field of a dataclass.

    A field of another type, such as another dataclass, must be checked by the dataclass itself.

    Args:
        group: of the configuration, for the message: a field is named `group.field`.
        spec: an instance of a dataclass.

    Raises:
        EditbenchError: a field is of another kind.
    """
    for item in fields(spec):
        # Text, since the dataclass's module postpones its evaluation (`from __future__ import
        # annotations`).
        annotation = str(item.type).replace(" ", "")
        if not is_understood(annotation):
            continue
        # The default of a field, if it has one, is the example.
        example = None if item.default is MISSING else item.default
        check_kind(f"{group}.{item.name}", getattr(spec, item.name), annotation, example)


def check_at_least(key: str, value: float, least: float) -> None:
    """Check that a number is finite and at least `least`.

    Args:
        key: dotted name of the value, for the message.
        value: the number.
        least: the smallest allowed number.

    Raises:
        EditbenchError: it is smaller, NaN or infinite.
    """
    if not value >= least:  # also rejects NaN
        raise EditbenchError(f"{key}={value} must be at least {least}")
    check_finite(key, value)


def check_positive(key: str, value: float) -> None:
    """Check that a number is finite and above 0.

    Args:
        key: dotted name of the value, for the message.
        value: the number.

    Raises:
        EditbenchError: it is 0 or negative, NaN or infinite.
    """
    if not value > 0:  # also rejects NaN
        raise EditbenchError(f"{key}={value} must be positive")
    check_finite(key, value)


def check_finite(key: str, value: float) -> None:
    """Check that a number is neither NaN nor infinite.

    Args:
        key: dotted name of the value, for the message.
        value: the number.

    Raises:
        EditbenchError: it is.
    """
    if not math.isfinite(value):
        raise EditbenchError(f"{key}={value} must be finite")


def check_multiple(key: str, value: float, of: str, part: float) -> None:
    """Check that a number is an integer multiple of another one.

    Args:
        key: name of the value, for the message.
        value: the number.
        of: name of the other number.
        part: the other number, positive.
    """
    times = round(value / part)
    # The quotient of numbers such as 0.3 and 0.1 has a rounding error.
    if abs(value / part - times) > 1e-9 * max(times, 1):
        raise EditbenchError(
            f"{key}={value} must be a multiple of {of}={part}, such as {times * part:g}"
        )


def check_numbers(key: str, values: object, count: int) -> list[float]:
    """Check that a value is a list of `count` finite numbers, and return them.

    Args:
        key: dotted name of the value, for the message.
        values: of the configuration, of any type.
        count: how many there must be.

    Raises:
        EditbenchError: it is no list, has another length, or has text, NaN or infinity.
    """
    given = values if isinstance(values, list | tuple) else ()
    # float("3") would be a number too, and a boolean is an integer.
    found = [
        float(value)
        for value in given
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(found) != count or not all(map(math.isfinite, found)):
        raise EditbenchError(f"{key} needs a list of {count} finite numbers; got {values!r}")
    return found


def near_powers_of_two(value: int, least: int) -> str:
    """The powers of two below and above a size, for a message: '32 or 64'.

    Args:
        value: the size, not a power of two.
        least: the smallest allowed size, a power of two.
    """
    above = least
    while above < value:
        above *= 2
    below = above // 2
    return f"{below} or {above}" if below >= least else str(above)


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Check that a value is one of `choices`.

    Args:
        key: dotted name of the value, for the message.
        value: of the configuration, of any type.
        choices: the allowed values, which the message lists in this order.

    Raises:
        EditbenchError: it is none of them.
    """
    known = list(choices)
    if value not in known:
        raise EditbenchError(f"{key}={in_yaml(value)} must be one of {', '.join(known)}")


def check_attributes(key: str, named: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of attributes in an option. A misspelt name would have no effect otherwise.

    Args:
        key: dotted name of the option, for the message.
        named: the names in the option.
        known: names of the attributes.

    Raises:
        UnknownName: a name is not an attribute; the message has the nearest one.
    """
    known = list(known)
    for name in named:
        if name not in known:
            raise UnknownName(f"attribute in {key}", str(name), known)


def check_options(key: str, target: str, options: Mapping[str, Any]) -> None:
    """Check the options of a component against the arguments of its class or function.

    Nothing is built. Kinds are checked only for arguments whose annotations
    `editbench.base.annotations` understands: plain types, and lists and mappings of them, such as
    Sequence[int]. The constructor checks the others.

    Args:
        key: the component's place in the configuration, such as 'method'.
        target: dotted name of a class or a function.
        options: its keyword arguments.

    Raises:
        UnknownName: an option is not an argument; the message has the nearest one.
        EditbenchError: `target` cannot be imported, an argument is missing, or a value is not of
            the kind of the argument's annotation.
    """
    known, takes_any = arguments_of(load_target(f"{key}._target_", target))
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
    """The class or function of a dotted name.

    Args:
        key: whose value it is, for the message: 'method._target_'.
        target: such as 'my_module.MyClass'.

    Raises:
        EditbenchError: it cannot be imported; the message has the module's own error.
    """
    try:
        return _imported(target)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        reason = f"{one_line(error)}{_place(error)}"
        remedy = user_code.hint(target)
        raise EditbenchError(f"{key}={target} cannot be imported: {reason}{remedy}") from error


def _imported(target: str) -> Any:
    """The object of a dotted name.

    Raises the module's own error if an import fails. Hydra's `get_object` would print it too.
    """
    words = target.split(".")
    found: Any = importlib.import_module(words[0])
    for count, word in enumerate(words[1:], 2):
        # In a package, this may be a module that has not been imported yet.
        if not hasattr(found, word) and hasattr(found, "__path__"):
            importlib.import_module(".".join(words[:count]))
        try:
            found = getattr(found, word)
        except AttributeError as error:
            near = did_you_mean(word, dir(found))
            if near:
                raise AttributeError(f"{error}.{near}") from error
            raise
    return found


def _place(error: BaseException) -> str:
    """The line of a user's module that raised an error, in brackets; '' if there is none."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    # The last frame, since the module may import another user's module that fails.
    own = frames_of(error, user_code.is_users_file)
    return at_line(own[-1]) if own else ""


def arguments_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a class or function, and whether it accepts any others.

    If the `__init__` of a class has **kwargs, the arguments of its bases are included.
    """
    callables: list[Callable[..., Any]] = [target]
    if inspect.isclass(target):
        # The signature of `object.__init__` has *args and **kwargs, but it accepts none.
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
                    # The class itself may pass this argument to its base, so it is optional.
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
    annotation = annotation_text(argument)
    if not is_understood(annotation):
        return
    if isinstance(value, Mapping) and "_target_" in value:
        return  # a nested component
    # A default of None allows null, though `layers: list[int] = None` does not say so.
    if value is None and argument.default is None:
        return
    # The default of somebody's own class may be as wrong as the value.
    example = argument.default if matches(argument.default, annotation) else None
    check_kind(key, value, annotation, example)
