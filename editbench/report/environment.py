"""The Jinja environment of the pages that this package writes."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

REPORT = "report"


def page_environment(folder: str = REPORT) -> Environment:
    """An environment whose templates escape all text.

    Args:
        folder: of the package, with the templates of the page. Those of the report are found as
            well: its script sorts the tables of other pages too.
    """
    folders = dict.fromkeys((folder, REPORT))
    return Environment(
        loader=ChoiceLoader([PackageLoader("editbench", name) for name in folders]),
        # Names, notes and reasons come from records and from the user.
        autoescape=True,
        # A misspelt name is an error and no empty cell.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
