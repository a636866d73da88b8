"""The Jinja environment of the pages that this package writes."""

from __future__ import annotations

from jinja2 import BytecodeCache, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from editbench.figures.theme import MethodStyle

REPORT = "report"
# Outlines of matplotlib's markers in a box from -5 to 5, shown next to the names of methods.
OUTLINES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.6-3.6h7.2v7.2h-7.2z",
    "D": "M0-4.7L4.7 0L0 4.7L-4.7 0z",
    "^": "M0-4.4L4.4 3.6H-4.4z",
    "v": "M0 4.4L4.4-3.6H-4.4z",
    "P": "M-1.6-4.4h3.2v2.8h2.8v3.2h-2.8v2.8h-3.2v-2.8h-2.8v-3.2h2.8z",
    "X": "M-4.4-2.2L-2.2-4.4L0-2.2L2.2-4.4L4.4-2.2L2.2 0L4.4 2.2L2.2 4.4L0 2.2L-2.2 4.4L-4.4 2.2L-2.2 0z",
}


class CompiledTemplates(BytecodeCache):
    """Caches compiled templates in this process, since compiling takes longer than rendering."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.code:
            # Jinja compares a checksum of the template's text, so a changed one is compiled again.
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.code[bucket.key] = bucket.bytecode_to_string()


COMPILED = CompiledTemplates()


def page_environment(folder: str = REPORT) -> Environment:
    """An environment whose templates escape all text.

    Args:
        folder: of the package, with the page's templates. The report's templates are found too,
            since other pages use its script to sort tables.
    """
    folders = dict.fromkeys((folder, REPORT))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("editbench", name) for name in folders]),
        # Names, notes and reasons come from records and from the user, so they must be escaped.
        autoescape=True,
        # A misspelt name raises an error instead of giving an empty cell.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=COMPILED,
    )
    environment.filters["dot"] = dot
    return environment


def dot(style: MethodStyle) -> Markup:
    """The symbol of a method next to its name: its marker and colour in the figures."""
    sign = (
        '<svg class="dot" viewBox="-5 -5 10 10" aria-hidden="true"><path d="{}" fill="{}"/></svg>'
    )
    return Markup(sign).format(OUTLINES[style.marker], style.colour)
