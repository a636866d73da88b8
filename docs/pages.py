"""Pages of the site that stand elsewhere in the repository: README, contributing, changelog, the tour.

MkDocs calls `on_files` while it builds the site; see mkdocs.yml.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
AS_THEY_ARE = ("CITATION.cff", "LICENSE")
TOUR = "tour.ipynb"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=LINK.sub(as_on_site, text)))
    for name in AS_THEY_ARE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    tour = notebook((ROOT / "docs" / TOUR).read_text(encoding="utf-8"))
    files.append(File.generated(config, "tour.md", content=tour))
    return files


def as_on_site(link: re.Match[str]) -> str:
    """A link of a file of the repository's root, as it is from a page of the site."""
    target = link[1].removeprefix("docs/")
    target = PAGES.get(target, target)
    if target == TOUR:
        target = "tour.md"
    return f"]({target}{link[2] or ''})"


def notebook(text: str) -> str:
    """The cells of a notebook as Markdown, and a link to the notebook."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts.append(f"The notebook itself: [{TOUR}]({TOUR}).")
    return "\n\n".join(parts)
