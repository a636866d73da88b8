"""Converted CelebA-HQ classifiers: a safetensors file with one or more of them, and its YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256
from editbench.networks.celebahq.network import CelebAHQClassifier, ClassifierConfig
from editbench.networks.celebahq.read import TENSORFLOW, ReadClassifier
from editbench.networks.stylegan import FOREIGN
from editbench.networks.weights import (
    group,
    is_altered,
    load_strict,
    load_tensors,
    save_checked,
)

KIND = "celebahq-classifiers"
PUBLISHED = re.compile(r"celebahq-classifier-\d\d-(?P<name>[\w-]+)")
TEMPLATE = """\
name: {name}
about: CelebA-HQ classifiers of {resolution} x {resolution} pixels ({count})
teacher:
  _target_: editbench.networks.scorers.celebahq.CelebAHQScorer
  path: {path}
  # A classifier of the file for each attribute, by its place.
  columns: {columns}
  # The sign is stated, as it differs by author: positive_is_low says that a low logit has the
  # second class. NVIDIA's are taken in StyleGAN's metric as softmax(logit, -logit), class 0 first,
  # so low is the attribute; of retrained ones high is. Look before you use them:
  #   editbench scorer check {yaml} --images PHOTOS
  attributes:
{attributes}
# One network in both roles: the judge then rewards what the method was fitted to, and every table
# says so. Give another network here where you have one.
judge: ${{scorer.teacher}}
"""
ENTRY = "    - {{name: {name}, classes: [not {words}, {words}], positive_is_low: {low}}}"


def attribute_of(path: Path) -> str:
    """The name of the attribute in a file's name; otherwise the file's name itself."""
    found = PUBLISHED.match(path.stem)
    name = found["name"] if found else path.stem
    return re.sub(r"\W+", "_", name).strip("_").lower()


def save_classifiers(path: Path, found: Sequence[ReadClassifier], names: Sequence[str]) -> None:
    """Write classifiers to one file, with their sources in the header.

    Args:
        path: of the safetensors file.
        found: the classifiers, in the order of the attributes.
        names: of their attributes.
    """
    # With numbers as prefixes, since the tensors of all classifiers have the same names.
    tensors: dict[str, Tensor] = {}
    entries = []
    for place, (item, name) in enumerate(zip(found, names)):
        for key, value in item.network.state_dict().items():
            tensors[f"{place}.{key}"] = value
        entries.append(
            {
                "name": name,
                "config": item.network.config.as_dict(),
                "file": item.path.name,
                "format": item.format,
                "sha256": file_sha256(item.path),
            }
        )
    save_checked(path, tensors, KIND, {"classifiers": entries})


def load_classifiers(
    path: Path | str, places: Sequence[int] | None = None
) -> list[CelebAHQClassifier]:
    """Classifiers of a converted file.

    Args:
        path: of the file.
        places: positions of the classifiers to load, counted from 0; None for all.

    Raises:
        BadFile: the file is missing, damaged or altered.
        EditbenchError: the file has no such position.
    """
    if Path(path).suffix in FOREIGN:
        raise BadFile(
            f"{path}: is not converted yet; run `editbench convert {path} --out FILE.safetensors`, "
            "and give that file"
        )
    config, tensors = load_tensors(path, KIND, "run `editbench convert` again")
    if is_altered(config, tensors):
        raise BadFile(
            f"{path}: its content has changed since it was converted; run `editbench convert`"
        )
    entries = config["classifiers"]
    found = []
    for place in range(len(entries)) if places is None else places:
        if not 0 <= place < len(entries):
            names = ", ".join(f"{k} {entry['name']}" for k, entry in enumerate(entries))
            raise EditbenchError(
                f"{path}: scorer.columns names classifier {place}, but the file has {names}"
            )
        network = CelebAHQClassifier(ClassifierConfig.from_dict(entries[place]["config"]))
        load_strict(network, group(tensors, str(place)), path)
        found.append(network.eval().requires_grad_(False))
    return found


def scorer_yaml(yaml: Path, path: Path, found: Sequence[ReadClassifier], names: list[str]) -> str:
    """The YAML of a scorer of converted classifiers.

    Args:
        yaml: path of the YAML file.
        path: of the converted file.
        found: the classifiers.
        names: of their attributes.
    """
    entries = []
    for item, name in zip(found, names):
        # See TEMPLATE: the sign depends on who trained the classifier.
        low = str(item.format == TENSORFLOW).lower()
        entries.append(ENTRY.format(name=name, words=name.replace("_", " "), low=low))
    return TEMPLATE.format(
        name=yaml.stem,
        resolution=found[0].network.config.resolution,
        count=", ".join(names),
        path=json.dumps(str(path.resolve())),
        columns=list(range(len(names))),
        yaml=yaml,
        attributes="\n".join(entries),
    )
