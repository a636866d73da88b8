"""Check values against annotations of arguments, without evaluating them.

Understood are `int`, `float`, `str`, `bool`, `Path`, `None`, `Sequence[...]`, `list[...]`,
`Mapping[str, ...]` and `dict[str, ...]` of what is understood, and alternatives with `|`. All other
annotations are left to the class that has them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from editbench.base.text import split_outside_brackets


class Kind(NamedTuple):
    """A plain type of a configuration.

    Args:
        types: Python types of its values.
        one: what a value is called in a message.
        several: what values are called.
    """

    types: tuple[type, ...]
    one: str
    several: str


# By the names in annotations.
KINDS = {
    "int": Kind((int,), "a whole number", "whole numbers"),
    "float": Kind((int, float), "a number", "numbers"),
    "str": Kind((str,), "text", "text"),
    "bool": Kind((bool,), "true or false", "true or false"),
    "Path": Kind((str, Path), "a path", "paths"),
    "None": Kind((type(None),), "null", "null"),
}
# The argument inside the brackets may itself be such an annotation.
LIST = re.compile(r"(?:Sequence|list)\[(.+)\]")
MAPPING = re.compile(r"(?:Mapping|dict)\[str,(.+)\]")


def annotation_text(argument: inspect.Parameter) -> str:
    """The annotation of an argument as text without spaces, such as 'float|list[float]'."""
    annotation = argument.annotation
    # It already is text if the module has `from __future__ import annotations`. str() of a type is
    # "<class 'int'>".
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    # Names without their modules: collections.abc.Sequence is Sequence.
    return re.sub(r"(?:\w+\.)+|\s", "", text)


def alternatives(annotation: str) -> list[str]:
    """The parts of an annotation between the `|` that are outside of all brackets."""
    return split_outside_brackets(annotation, "|")


def is_understood(annotation: str) -> bool:
    """Whether values can be checked against an annotation."""
    for part in alternatives(annotation):
        inner = LIST.fullmatch(part) or MAPPING.fullmatch(part)
        if part not in KINDS and not (inner and is_understood(inner[1])):
            return False
    return True


def item_annotation(annotation: str) -> str | None:
    """The annotation of the values of a mapping, if one of the alternatives is a mapping."""
    for part in alternatives(annotation):
        if inner := MAPPING.fullmatch(part):
            return inner[1]
    return None


def matches(value: object, annotation: str) -> bool:
    """Whether a value has the type of an understood annotation. A bool is no number."""
    return any(_matches_part(value, part) for part in alternatives(annotation))


def _matches_part(value: object, part: str) -> bool:
    if inner := LIST.fullmatch(part):
        return isinstance(value, list | tuple) and all(matches(item, inner[1]) for item in value)
    if inner := MAPPING.fullmatch(part):
        return isinstance(value, Mapping) and all(
            matches(item, inner[1]) for item in value.values()
        )
    if isinstance(value, bool):
        return part == "bool"
    return isinstance(value, KINDS[part].types)


def in_words(annotation: str, several: bool = False) -> str:
    """'a number or null', 'a list of lists of text', 'a mapping from names to numbers'.

    Args:
        annotation: an understood one.
        several: whether to use the plural.
    """
    words = []
    parts = alternatives(annotation)
    for part in parts:
        if part == "str" and "Path" in parts:
            continue  # a path is text, but not every text is one
        if inner := LIST.fullmatch(part):
            words.append(f"{'lists' if several else 'a list'} of {in_words(inner[1], True)}")
        elif inner := MAPPING.fullmatch(part):
            start = "mappings" if several else "a mapping"
            words.append(f"{start} from names to {in_words(inner[1], True)}")
        else:
            words.append(KINDS[part].several if several else KINDS[part].one)
    return " or ".join(words)
