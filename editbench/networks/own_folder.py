"""A folder of a user's own files: a generator and classifiers of attributes, as they were published.

    FOLDER/
      stylegan2-ffhq-config-f.pkl                 any generator that `editbench convert` reads
      celebahq-classifier-00-male.pkl             one classifier an attribute; or male.pth, or
      celebahq-classifier-01-smiling.pkl          male/net_best.pth of those who trained them again
      ...

A file is a classifier by the word of its attribute in its name; of the others one must be the
generator. What is read is converted once, into FOLDER/converted, under a name of its content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.base.files import digest, explain_disk_errors, file_sha256
from editbench.networks.celebahq.read import is_classifier, read_classifier
from editbench.networks.celebahq.store import save_classifiers
from editbench.networks.checkpoints import assemble, read_content, source_of
from editbench.networks.checkpoints.converted import check_pictures, decode_probes, write_network
from editbench.networks.scorers.celebahq import CelebAHQScorer
from editbench.networks.style_generator import StyleGenerator
from editbench.networks.stylegan import FOREIGN
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan3.generator import StyleGAN3Generator
from editbench.networks.weights import read_kind

CONVERTED = "converted"  # the folder within the user's
VERSION = 1  # of the conversion; raise it when its numbers change
ENDINGS = (*FOREIGN, ".safetensors")
GENERATORS: dict[str, type[StyleGenerator]] = {
    made.network_type.kind: made for made in (StyleGAN2Generator, StyleGAN3Generator)
}
# How the names of NVIDIA's 40 classifiers begin.
CLASSIFIER = "celebahq-classifier"


# -- which file is what ---------------------------------------------------------------------------
def find_files(folder: Path) -> list[Path]:
    """Files of networks in a folder and in the folders directly within it, by name.

    Raises:
        EditbenchError: there is no such folder.
    """
    if not folder.is_dir():
        raise EditbenchError(
            f"{folder}: {no_such('folder', folder)}; give the folder of your files with data=FOLDER"
        )
    # Two levels, as retrained classifiers of one name lie in folders of their attributes.
    found = []
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        if path.suffix in ENDINGS and path.is_file() and path.parent.name != CONVERTED:
            found.append(path)
    return sorted(found)


def words_of(folder: Path, path: Path) -> set[str]:
    """The words in the name of a file and of its folder: 'male' is none of 'female'."""
    return set(re.split(r"[^a-z]+", str(path.relative_to(folder).with_suffix("")).lower()))


def find_classifier(folder: Path, files: Sequence[Path], word: str) -> Path:
    """The classifier of an attribute.

    Args:
        folder: of the user.
        files: what `find_files` found there.
        word: of the attribute, as in the names of the files.

    Raises:
        EditbenchError: none, or several.
    """
    found = [path for path in files if word in words_of(folder, path)]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise EditbenchError(
            f"{folder}: one classifier of '{word}' is needed ({CLASSIFIER}-NN-{word}.pkl, "
            f"{word}.pth or {word}/net_best.pth), found {names}; scorer.teacher.files lists the "
            "words to look for"
        )
    return found[0]


def find_generator(folder: Path, file: str | None, words: Sequence[str]) -> Path:
    """The generator: the file that is named, or the only one that is no classifier.

    Args:
        folder: of the user.
        file: its name in the folder; None looks for it.
        words: of the attributes, by which classifiers are known.

    Raises:
        EditbenchError: none, or several.
    """
    if file is not None:
        named = folder / str(file)
        if not named.is_file():
            raise EditbenchError(f"{named}: {no_such('file', named)} (generator.file)")
        return named
    found = []
    for path in find_files(folder):
        if path.parent == folder and not words_of(folder, path) & {*words, "classifier"}:
            found.append(path)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise EditbenchError(
            f"{folder}: one generator is needed (stylegan2-ffhq-config-f.pkl, or another that "
            f"`editbench convert` reads), found {names}; choose it with generator.file=NAME"
        )
    return found[0]


# -- the networks ---------------------------------------------------------------------------------
def load_generator(
    folder: Path | str,
    file: str | None = None,
    words: Sequence[str] = (),
    truncation_psi: float = 1.0,
    label: int | Sequence[float] | None = None,
    truncation_cutoff: int | None = None,
) -> StyleGenerator:
    """The generator of a user's folder, converted at the first call.

    Args:
        folder: of the user.
        file: its name, where there are several.
        words: of the attributes, by which classifiers are known.
        truncation_psi: see `StyleGenerator`.
        label: see there.
        truncation_cutoff: see there.

    Raises:
        EditbenchError: none, or several.
        BadFile: the file is damaged, or no generator that is read.
    """
    path = find_generator(Path(folder), file, words)
    # A file that `editbench convert` wrote is read as it is.
    kind = read_kind(path) if path.suffix == ".safetensors" else None
    if kind not in GENERATORS:
        path = converted_generator(Path(folder), path)
        kind = read_kind(path)
    if kind not in GENERATORS:
        raise BadFile(f"{path}: damaged; delete it, and it is made again")
    return GENERATORS[kind].from_file(
        path, truncation_psi, label=label, truncation_cutoff=truncation_cutoff
    )


def converted_generator(folder: Path, path: Path) -> Path:
    """The converted file of a generator."""
    # Another file under the same name is converted anew.
    content = digest([VERSION, file_sha256(path)])
    out = folder / CONVERTED / f"{path.stem}-{content[:12]}.safetensors"
    if not out.is_file():
        source = source_of(path, read_content(path))
        network = assemble(source)
        images = decode_probes(network)
        check_pictures(images, path)
        with explain_disk_errors(out):
            out.parent.mkdir(exist_ok=True)
        write_network(out, source, network, images)
    return out


class FolderScorer(CelebAHQScorer):
    """The classifiers of a user's folder as one scorer, converted at the first call.

    Args:
        folder: of the user.
        files: the word of each attribute in the names of the files, in the order of the attributes.
        attributes: see `CelebAHQScorer`.

    Raises:
        EditbenchError: a classifier is missing, or there are several.
        BadFile: a file is damaged, or no such classifier.
    """

    def __init__(
        self, folder: Path | str, files: Sequence[str], attributes: Sequence[Mapping[str, Any]]
    ) -> None:
        there = find_files(Path(folder))
        found = [find_classifier(Path(folder), there, word) for word in files]
        converted = converted_classifiers(Path(folder), found, files)
        try:
            super().__init__(converted, attributes)
        except BadFile as error:
            raise BadFile(f"{error}; delete {converted}, and it is made again") from error


def converted_classifiers(folder: Path, paths: Sequence[Path], words: Sequence[str]) -> Path:
    """The converted file of classifiers."""
    # The order of the files is that of the attributes, so it counts.
    content = digest([VERSION, *(file_sha256(path) for path in paths)])
    out = folder / CONVERTED / f"classifiers-{content[:12]}.safetensors"
    if not out.is_file():
        made = []
        for path in paths:
            held = read_content(path)
            if not is_classifier(held):
                raise BadFile(f"{path}: not a CelebA-HQ classifier; see docs/ffhq.md")
            made.append(read_classifier(path, held))
        with explain_disk_errors(out):
            out.parent.mkdir(exist_ok=True)
            save_classifiers(out, made, words)
    return out
