"""The folder of a study: pages for raters, and a key that raters must not see.

pages/page-1.html ...  self-contained pages without the names of methods
key.json               which method is on which side of each question
manifest.json          the runs, the shares of starts that crossed, and the counts of every pair
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from markupsafe import Markup

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import (
    atomic_folder,
    digest,
    file_sha256,
    read_json,
    write_atomic,
    write_json,
)
from editbench.base.progress import progress
from editbench.report.strips import PIXELATED, picture
from editbench.report.templates import page_environment
from editbench.run.loading import check_device
from editbench.studies.human import ASKED, FORMAT, RATER, VERSION
from editbench.studies.human.draw import MethodComparison, Question, comparisons, questions
from editbench.studies.human.edits import read_edits
from editbench.studies.human.redraw import Pair, open_pictures

LARGEST_PAGE = 150_000_000  # bytes; browsers are slow to open larger files
# Small pictures are enlarged by a whole number to about this many pixels of the screen, since
# raters cannot judge a face of 32 pixels.
SHOWN = 256


@dataclass(frozen=True)
class StudyDesign:
    """The design of a study.

    Args:
        methods: labels or names; empty for all methods.
        pairs: number of comparisons per attribute, distributed over its pairs of methods.
        sets: number of pages.
        split: whether the comparisons are distributed over the pages; otherwise each page has all.
        duplicates: share of a page's comparisons that are shown twice.
        seed: of all random draws.
        asked: 'change', 'identity' or both.
        title: of the pages.
        intro: text above the instructions, such as about consent and contact.
        setting: of the runs; None if there is only one.

    Raises:
        EditbenchError: an option is out of its range.
    """

    methods: tuple[str, ...] = ()
    pairs: int = 20
    sets: int = 1
    split: bool = False
    duplicates: float = 0.05
    seed: int = 0
    asked: tuple[str, ...] = tuple(ASKED)
    title: str = "Which edit is better?"
    intro: str = ""
    setting: str | None = None

    def __post_init__(self) -> None:
        # At most 0.5, since only the first half of a page can be repeated half a page later.
        if self.pairs < 1 or self.sets < 1 or not 0 <= self.duplicates <= 0.5:
            raise EditbenchError(
                "--pairs and --sets must be at least 1, --duplicates between 0 and 0.5"
            )
        if not self.asked or set(self.asked) - set(ASKED) or len(set(self.asked)) < len(self.asked):
            raise EditbenchError(
                f"--questions takes {' and '.join(ASKED)}, got {', '.join(self.asked) or 'nothing'}"
            )


def make_study(
    root: Path, out: Path, design: StudyDesign, device: str = "cpu", cache: Path | None = None
) -> dict:
    """Draw a study from the records of a runs folder and write it to a new folder.

    Args:
        root: the runs folder.
        out: folder of the study, which must be new or empty (answers may belong to an old one).
        design: of the study.
        device: that redraws the pictures.
        cache: see `open_pictures`.

    Returns:
        The content of its manifest.json.

    Raises:
        EditbenchError: nothing can be compared, `out` is not empty, the device is missing, or a
            page would be too large.
    """
    # Otherwise each run would silently fall back on the few pictures of its strips.
    check_device(device, "--device ")
    # An existing study is never replaced, since its answers could not be read with another key.
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EditbenchError(
            f"{out} is there already, and answers may belong to it: give --out a new folder"
        )
    results, edits, left_out = read_edits(root, design.methods, design.setting)
    _check_words(design, {*results.runs["method"], *results.runs["label"], *results.runs["run_id"]})
    # Only starts with pictures may be drawn.
    opened = [open_pictures(results, one, device, cache) for one in edits]
    edits = [one for one, _ in opened]
    drawn, counts = comparisons(edits, design.pairs, design.seed)
    pictures = _pictures(drawn, {(one.attribute, one.label): source for one, source in opened})
    pages = {
        str(k + 1): questions(part, str(k + 1), design.duplicates, design.seed)
        # With --split and few comparisons, a page may have none.
        for k, part in enumerate(_parts(drawn, design))
        if part
    }
    key = _key(pages, design)
    manifest = {
        "format": f"{FORMAT} manifest",
        "version": VERSION,
        "study": key["study"],
        "root": str(root),
        "design": asdict(design),
        "coverage": [one.coverage() for one in edits],
        "pairs": counts,
        "comparisons": len(drawn),
        "left_out": left_out,
    }
    # Atomic, since pages without their key are worthless.
    with atomic_folder(out) as partial:
        (partial / "pages").mkdir()
        made = {}
        for name, asked in pages.items():
            file = partial / "pages" / f"page-{name}.html"
            write_atomic(file, render(name, asked, pictures, key["study"], design))
            made[name] = {
                "file": f"pages/{file.name}",
                "questions": len(asked),
                # To check later that raters had this page.
                "sha256": file_sha256(file),
                "repeats": sum(one.duplicate_of is not None for one in asked),
            }
        write_json(partial / "key.json", key)
        write_json(partial / "manifest.json", manifest | {"pages": made})
    return manifest | {"pages": made}


def render(
    name: str,
    asked: list[Question],
    pictures: dict[tuple[str, int, str], Pair],
    study: str,
    design: StudyDesign,
) -> str:
    """One page as HTML.

    It has the ids, attributes, classes and pictures of its questions, but no names of methods.

    Args:
        name: of the page.
        asked: its questions, in their order.
        pictures: (attribute, start, method) -> unedited and edited picture, for all pages.
        study: id of the study, which the answers contain too.
        design: of the study.

    Raises:
        EditbenchError: the page would be too large.
    """
    shown = []
    for one in asked:
        comparison = one.comparison
        left, right = (
            pictures[comparison.attribute, comparison.start, method]
            for method in (one.left, one.right)
        )
        # The original is the same for both methods.
        original = pictures[comparison.attribute, comparison.start, comparison.a][0]
        shown.append(
            {
                "id": one.id,
                "attribute": _words(comparison.attribute),
                "target": _words(comparison.target),
                "left": _uri(left[1]),
                "original": _uri(original),
                "right": _uri(right[1]),
            }
        )
    # Over all pages, so that their pictures have the same size.
    side = max(max(pair[1].shape[-2:]) for pair in pictures.values())
    # With a whole multiple, all pixels of a small picture are equally large.
    width = SHOWN // side * side if side <= PIXELATED else max(SHOWN, min(side, 384))
    data = {
        "format": f"{FORMAT} responses",
        "version": VERSION,
        "study": study,
        "set": name,
        "asked": list(design.asked),
        "questions": shown,
    }
    environment = page_environment("studies/human")
    text = environment.get_template("page.html").render(
        title=design.title,
        intro=design.intro.strip(),
        data=data,
        width=width,
        count=len(shown),
        asked=design.asked,
        pixelated=side <= PIXELATED,
        rater=RATER,
        # Not escaped, since these are files of the package.
        css=Markup(_source("page.css")),
        js=Markup(_source("page.js")),
    )
    # Otherwise a rater would notice, when the browser hangs.
    if len(text) > LARGEST_PAGE:
        raise EditbenchError(
            f"page {name} would have {len(text) / 1e6:.0f} MB: ask for fewer --pairs, or deal them "
            "to several pages with --sets N --split"
        )
    return text


def _parts(drawn: list[MethodComparison], design: StudyDesign) -> list[list[MethodComparison]]:
    """The comparisons of each page."""
    # Every k-th comparison, so that each page has its share of every attribute and pair.
    return [drawn[k :: design.sets] if design.split else drawn for k in range(design.sets)]


def _pictures(drawn: list[MethodComparison], sources: dict) -> dict[tuple[str, int, str], Pair]:
    """(attribute, start, method) -> original and edit, for all comparisons."""
    # By run, since a start may be in many comparisons and is redrawn once.
    needed: dict[tuple[str, str], set[int]] = {}
    for one in drawn:
        for method in (one.a, one.b):
            needed.setdefault((one.attribute, method), set()).add(one.start)
    found = {}
    with progress("drawing the pictures", len(needed)) as advance:
        for (attribute, method), starts in needed.items():
            for start, pair in sources[attribute, method](sorted(starts)).items():
                found[attribute, start, method] = pair
            advance()
    return found


def _key(pages: dict[str, list[Question]], design: StudyDesign) -> dict:
    """The content of key.json."""
    entries = {
        one.id: {
            "set": name,
            "comparison": one.comparison.id,
            "attribute": one.comparison.attribute,
            "start": one.comparison.start,
            "source": one.comparison.source,
            "target": one.comparison.target,
            "left": one.left,
            "right": one.right,
            "duplicate_of": one.duplicate_of,
        }
        for name, page in pages.items()
        for one in page
    }
    # Ids are drawn independently for each page, so two pages could have the same id.
    if len(entries) < sum(map(len, pages.values())):
        raise EditbenchError(
            f"two questions drew the same id: take another --seed than {design.seed}"
        )
    body = {"asked": list(design.asked), "questions": entries}
    return {
        "format": f"{FORMAT} key",
        "version": VERSION,
        "study": digest(body | {"seed": design.seed}),
    } | body


def _check_words(design: StudyDesign, names: set[str]) -> None:
    """Check that title and intro name no method; 'Neural ODE' names neural_ode too."""
    for option, text in (("--title", design.title), ("--intro", design.intro)):
        for name in sorted(names):
            # Any characters that are no letters or digits, or none, may be between the words.
            words = r"[\W_]*".join(map(re.escape, re.findall(r"[^\W_]+", name)))
            # Only whole words, since a method named 'random' must not forbid 'randomly'.
            if re.search(rf"(?<![^\W_]){words}(?![^\W_])", text, re.IGNORECASE):
                raise EditbenchError(
                    f"{option} names the method '{name}', which raters must not know: leave it out"
                )


def _uri(image) -> str:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    # Lossless, since artefacts of a JPEG could be taken for those of a method.
    picture(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def read_key(folder: Path) -> dict:
    """The content of a study's key.json.

    Raises:
        EditbenchError: it is missing or invalid.
    """
    path = folder / "key.json"
    try:
        # A single changed letter could swap the two methods of a question.
        key = read_json(path)
        fits = (
            key["format"] == f"{FORMAT} key"
            and key["version"] == VERSION
            and isinstance(key["study"], str)
            and all(
                {"set", "comparison", "attribute", "left", "right", "duplicate_of"} <= set(one)
                for one in key["questions"].values()
            )
        )
        if not fits or set(key["asked"]) - set(ASKED):
            raise ValueError("not a key of this version")
    # Errors that other JSON raises when it is read as a key.
    except (BadFile, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EditbenchError(
            f"{path} is not the key of a study ({error}): name the folder that `editbench human "
            "make` wrote, with its key.json"
        ) from error
    return key


def summary(manifest: dict) -> list[str]:
    """Lines for the organiser: the size of the study, and where it falls short of the design."""
    count = len(manifest["pages"])
    pages = "1 page" if count == 1 else f"{count} pages"
    lines = [f"{manifest['comparisons']} comparisons on {pages}; study {manifest['study']}"]
    for row in manifest["coverage"]:
        lines.append(
            f"{row['method']} on {row['attribute']}: {row['crossed']} of {row['starts']} starts "
            f"crossed, {row['usable']} of these have images ({row['pictures']})"
        )
    for row in manifest["pairs"]:
        # All counts are in manifest.json.
        if row["drawn"] < row["asked"]:
            lines.append(
                f"only {row['drawn']} of {row['asked']} comparisons of {row['a']} and {row['b']} "
                f"on {row['attribute']}: both cross on {row['both_crossed']} starts, "
                f"{row['with_pictures']} of these have images"
            )
    lines += [f"left out: {row['run']}: {row['reason']}" for row in manifest["left_out"]]
    return lines
