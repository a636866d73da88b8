"""A user's folder with published files of a generator and of classifiers of attributes.

    FOLDER/
      stylegan2-ffhq-config-f.pkl                 any generator that `editbench convert` reads
      celebahq-classifier-00-male.pkl             one classifier per attribute; or, for retrained
      celebahq-classifier-01-smiling.pkl          ones, male.pth or male/net_best.pth
      ...

A file with the word of an attribute in its name is a classifier. One of the other files must be the
generator. Files are converted once, to FOLDER/converted, with names that depend on their content.
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

CONVERTED = "converted"  # subfolder of the user's folder
OF_FOLDER = "data=FOLDER"  # chooses that folder
VERSION = 1  # of the conversion; increment it when numbers change
ENDINGS = (*FOREIGN, ".safetensors")
GENERATORS: dict[str, type[StyleGenerator]] = {
    made.network_type.kind: made for made in (StyleGAN2Generator, StyleGAN3Generator)
}
# Prefix of the names of NVIDIA's 40 classifiers.
CLASSIFIER = "celebahq-classifier"


# -- finding files --------------------------------------------------------------------------------
def _find_files(folder: Path) -> list[Path]:
    """Files of networks in a folder and its direct subfolders, sorted by name."""
    if not folder.is_dir():
        raise EditbenchError(
            f"{folder}: {no_such('folder', folder)}; give the folder of your files with {OF_FOLDER}"
        )
    # Two levels, since retrained classifiers have the same name and are in folders by attribute.
    found = []
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        if path.suffix in ENDINGS and path.is_file() and path.parent.name != CONVERTED:
            found.append(path)
    return sorted(found)


def words_of(folder: Path, path: Path) -> set[str]:
    """The words in the names of a file and its folder, in lower case; 'male' is none of 'female'."""
    # Digits separate words too, as in classifier-00-male.
    return set(re.split(r"[^a-z]+", str(path.relative_to(folder).with_suffix("")).lower()))


def _find_classifier(folder: Path, files: Sequence[Path], word: str) -> Path:
    """The only classifier whose name has the word of an attribute."""
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
    """The generator: the given file, or the only one that is no classifier of these words."""
    if file is not None:
        named = folder / str(file)
        if not named.is_file():
            raise EditbenchError(f"{named}: {no_such('file', named)} (generator.file)")
        return named
    found = []
    for path in _find_files(folder):
        # The folders in it have retrained classifiers, by attribute.
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
        file: its name; needed if there are several.
        words: of the attributes, by which classifiers are recognised.
        truncation_psi: see `StyleGenerator`.
        label: see `StyleGenerator`.
        truncation_cutoff: see `StyleGenerator`.

    Raises:
        EditbenchError: there is no generator, or there are several.
        BadFile: the file is damaged, or not a supported generator.
    """
    path = find_generator(Path(folder), file, words)
    # A file that `editbench convert` wrote is read directly.
    kind = read_kind(path) if path.suffix == ".safetensors" else None
    if kind not in GENERATORS:
        path = _converted_generator(Path(folder), path)
        kind = read_kind(path)
    if kind not in GENERATORS:
        raise BadFile(f"{path}: damaged; delete it, and it is made again")
    return GENERATORS[kind].from_file(
        path, truncation_psi, label=label, truncation_cutoff=truncation_cutoff
    )


def _converted_generator(folder: Path, path: Path) -> Path:
    """The converted file of a generator, made if it is absent."""
    # By content, so that a different file of the same name is converted again.
    content = digest([VERSION, file_sha256(path)])
    out = folder / CONVERTED / f"{path.stem}-{content}.safetensors"
    if not out.is_file():
        source = source_of(path, read_content(path))
        network = assemble(source)
        images = decode_probes(network)
        check_pictures(images, path)
        with explain_disk_errors(out, OF_FOLDER):
            write_network(out, source, network, images)
    return out


class FolderScorer(CelebAHQScorer):
    """The classifiers of a user's folder as one scorer, converted at the first call.

    Args:
        folder: of the user.
        files: for each attribute, in order, its word in the names of files.
        attributes: see `CelebAHQScorer`.

    Raises:
        EditbenchError: a classifier is missing, or an attribute has several.
        BadFile: a file is damaged, or not such a classifier.
    """

    def __init__(
        self, folder: Path | str, files: Sequence[str], attributes: Sequence[Mapping[str, Any]]
    ) -> None:
        there = _find_files(Path(folder))
        found = [_find_classifier(Path(folder), there, word) for word in files]
        converted = _converted_classifiers(Path(folder), found, files)
        try:
            super().__init__(converted, attributes)
        except BadFile as error:
            raise BadFile(f"{error}; delete {converted}, and it is made again") from error


def _converted_classifiers(folder: Path, paths: Sequence[Path], words: Sequence[str]) -> Path:
    """The converted file of the classifiers of the attributes, in order, made if it is absent."""
    # The order matters, since it is that of the attributes.
    content = digest([VERSION, *(file_sha256(path) for path in paths)])
    out = folder / CONVERTED / f"classifiers-{content}.safetensors"
    if not out.is_file():
        made = []
        for path in paths:
            held = read_content(path)
            if not is_classifier(held):
                raise BadFile(f"{path}: not a CelebA-HQ classifier; see docs/ffhq.md")
            made.append(read_classifier(path, held))
        with explain_disk_errors(out, OF_FOLDER):
            save_classifiers(out, made, words)
    return out
