"""The card of a world: does the generator make the faces of the renderer, and can the judge be believed?

Data labels are known, labels of generated faces are the judge's; so data is shown both as it is and as judged. The
association of two binary attributes is phi (the Pearson correlation of their 0/1 labels); where an attribute with more
classes takes part it is Cramer's V, which has no sign and is about sqrt((K - 1) / n) for independent labels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from editbench.attributes import Attributes
from editbench.engine import to_uint8
from editbench.errors import EditbenchError
from editbench.files import write_atomic, write_json
from editbench.generators.base import Generator
from editbench.progress import Advance, progress
from editbench.scorers.base import Scorer
from editbench.scorers.convnet import ConvScorer
from editbench.seeding import normals
from editbench.spaces import Codes, Space
from editbench.worlds.bars import bars
from editbench.worlds.faces import RESOLUTION, load_generator, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.frechet import frechet_distance, moments
from editbench.worlds.separability import path_lengths, separability
from editbench.worlds.train_scorers import accuracy, agreement

BATCH = 64
UNDISPUTED = 0.5  # margin of renders whose labels nobody would dispute: half-way from a threshold to the class centre
PATHS = 2000  # faces whose path length is taken
SHEET_COLUMNS, SHEET_ROWS, SHEET_ZOOM = 12, 8, 2
SHEET = SHEET_COLUMNS * SHEET_ROWS


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two binary label vectors; 0 where one is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def cramers_v(a: np.ndarray, b: np.ndarray, rows: int, columns: int) -> float:
    """Cramer's V in [0, 1] of two label vectors with the given numbers of classes."""
    table = np.zeros((rows, columns))
    np.add.at(table, (a, b), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    chi2 = np.divide((table - expected) ** 2, expected, out=np.zeros_like(table), where=expected > 0).sum()
    return float(np.sqrt(chi2 / len(a) / (min(rows, columns) - 1)))


def associations(labels: np.ndarray, attributes: Attributes) -> np.ndarray:
    """labels (N, A) -> symmetric (A, A): phi of binary pairs, Cramer's V of the others, 1 on the diagonal."""
    matrix = np.eye(len(attributes))
    for i, first in enumerate(attributes):
        for j, second in enumerate(attributes.items[:i]):
            a, b = labels[:, i], labels[:, j]
            both = first.binary and second.binary
            matrix[i, j] = matrix[j, i] = phi(a, b) if both else cramers_v(a, b, len(first.classes),
                                                                           len(second.classes))
    return matrix


def marginals(labels: np.ndarray, attributes: Attributes) -> dict[str, list[float]]:
    """Share of every class: labels (N, A) -> {attribute: [share a class]}."""
    return {item.name: (np.bincount(labels[:, i], minlength=len(item.classes)) / len(labels)).tolist()
            for i, item in enumerate(attributes)}


def largest_gap(a: dict[str, list[float]], b: dict[str, list[float]]) -> float:
    """Largest difference of a class share between two `marginals`."""
    return max(float(np.abs(np.subtract(a[name], b[name])).max()) for name in a)


@torch.inference_mode()
def judged(batches: Iterator[Tensor], teacher: Scorer, judge: Scorer, advance: Advance) -> dict[str, Tensor]:
    """Logits of teacher and judge and the judge's features, if it has any, of a stream of pictures, on the host."""
    parts: dict[str, list[Tensor]] = {"teacher": [], "judge": [], "features": []}
    for images in batches:
        if isinstance(judge, ConvScorer):
            features = judge.features(images)
            parts["features"].append(features.cpu())
            parts["judge"].append(judge.head(features).float().cpu())
        else:
            parts["judge"].append(judge(images).cpu())
        parts["teacher"].append(teacher(images).cpu())
        advance(len(images))
    return {name: torch.cat(part) for name, part in parts.items() if part}


def measure(n: int, generator: Generator, teacher: Scorer, judge: Scorer, seed: int = 5_005,
            law: FactorLaw | None = None) -> dict:
    """Everything the card of the faces' world shows as numbers, from n renders of a law (default: the world's own), n
    others for the floor, and n generated faces."""
    attributes, law = judge.attributes, law or FactorLaw()
    truth = sample_factors(law, seed, 0, n, "card").labels().numpy()
    with progress("pictures judged", 3 * n) as advance:
        data = judged(_renders(law, seed, 0, n), teacher, judge, advance)
        other = judged(_renders(law, seed, n, 2 * n), teacher, judge, advance)
        made = judged(_generated(generator, seed, n), teacher, judge, advance)
    card = _of_generated(made, n, generator, teacher, judge, seed)
    data_labels = attributes.labels(data["judge"]).numpy()
    for name, labels in (("truth", truth), ("data", data_labels)):
        card["marginals"][name] = marginals(labels, attributes)
        card["associations"][name] = associations(labels, attributes).tolist()
    bonds = {name: np.array(value) for name, value in card["associations"].items()}
    card["world"] = "faces"
    card["marginal_gap"] = largest_gap(card["marginals"]["truth"], card["marginals"]["generated"])
    card["association_gap"] = float(np.abs(bonds["truth"] - bonds["generated"]).max())
    card["agreement"]["renders"] = agreement(data["teacher"], data["judge"], attributes)
    laws = {"world law": law, "undisputed": replace(law, margin=UNDISPUTED), "dense law": replace(law, margin=0.0)}
    card["accuracy"] = {role: {title: accuracy(scorer, law, n) for title, law in laws.items()}
                        for role, scorer in (("judge", judge), ("teacher", teacher))}
    card["frechet"] = {
        "generated": frechet_distance(made["features"], data["features"]),
        "floor": frechet_distance(other["features"], data["features"]),
        "variance": float(np.trace(moments(data["features"])[1])),
    }
    card["bars"] = [bar.as_dict() for bar in bars(card)]
    return card


def measure_alone(n: int, generator: Generator, teacher: Scorer, judge: Scorer, seed: int = 5_005,
                  name: str = "") -> dict:
    """The card of any world whose data are not at hand: what n generated pictures say by themselves."""
    with progress("pictures judged", n) as advance:
        made = judged(_generated(generator, seed, n), teacher, judge, advance)
    card = _of_generated(made, n, generator, teacher, judge, seed)
    card["world"] = name
    card["bars"] = [bar.as_dict() for bar in bars(card)]
    return card


def _of_generated(made: dict[str, Tensor], n: int, generator: Generator, teacher: Scorer, judge: Scorer,
                  seed: int) -> dict:
    """The part of a card that needs no data; `made` is what `judged` says of the generated pictures."""
    attributes = judge.attributes
    labels = attributes.labels(made["judge"]).numpy()
    z = torch.cat([codes.values for codes in _codes(generator, seed, n)])
    with torch.inference_mode():
        spaces = {"Z": z} if Space.W not in generator.spaces else {"Z": z, "W": generator.map(z)}
    card = {
        "n": n,
        "generator": generator.digest,
        "teacher": teacher.digest,
        "judge": judge.digest,
        "attributes": attributes.as_config(),
        "marginals": {"generated": marginals(labels, attributes)},
        "associations": {"generated": associations(labels, attributes).tolist()},
        "agreement": {"generated": agreement(made["teacher"], made["judge"], attributes)},
        "separability": {space: separability(codes.numpy(), made["teacher"], made["judge"], attributes)
                         for space, codes in spaces.items()},
    }
    if "W" in spaces and generator.output == "image":
        lengths = path_lengths(generator, min(n, PATHS), seed)
        card["path_length"] = {"mean": float(lengths.mean()), "spread": float(lengths.std() / lengths.mean())}
    return card


def _renders(law: FactorLaw, seed: int, start: int, stop: int) -> Iterator[Tensor]:
    for first in range(start, stop, BATCH):
        yield render(sample_factors(law, seed, first, min(first + BATCH, stop), "card"), RESOLUTION)


def _codes(generator: Generator, seed: int, n: int) -> Iterator[Codes]:
    for first in range(0, n, BATCH):
        z = torch.from_numpy(normals(seed, "card/z", first, min(first + BATCH, n), generator.z_dim)).float()
        yield Codes(Space.Z, z)


def _generated(generator: Generator, seed: int, n: int) -> Iterator[Tensor]:
    for codes in _codes(generator, seed, n):
        yield generator.decode(codes)


@torch.inference_mode()
def sheet(batches: Iterator[Tensor]) -> np.ndarray:
    """The pictures of a stream as one (rows R zoom, columns R zoom, 3) uint8 picture."""
    x = to_uint8(torch.cat(list(batches)))
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    size = x.shape[-1]
    zoom = SHEET_ZOOM if size <= 64 else 1
    x = x.reshape(SHEET_ROWS, SHEET_COLUMNS, 3, size, size).permute(0, 3, 1, 4, 2)
    x = x.reshape(SHEET_ROWS * size, SHEET_COLUMNS * size, 3)
    return x.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1).numpy()


def world_card(out: Path, n: int = 10_000, generator: Generator | None = None, teacher: ConvScorer | None = None,
               judge: ConvScorer | None = None, seed: int = 5_005, law: FactorLaw | None = None) -> dict:
    """Write index.html (self-contained), card.json and sheet.png (renders left, generated right) to `out`.

    What is not given is loaded from the package. Returns the content of card.json.
    """
    generator = generator or load_generator()
    teacher, judge = teacher or load_scorer("teacher"), judge or load_scorer("judge")
    card = measure(n, generator, teacher, judge, seed, law)
    left = sheet(_renders(law or FactorLaw(), seed, 0, SHEET))
    right = sheet(_generated(generator, seed, SHEET))
    gutter = np.full((left.shape[0], 16, 3), 255, np.uint8)
    return _write(out, card, np.concatenate([left, gutter, right], 1))


def other_card(out: Path, n: int, generator: Generator, teacher: Scorer, judge: Scorer, name: str,
               seed: int = 5_005) -> dict:
    """The same for a world whose data are not at hand: of one's own, or an imported network.

    Raises:
        EditbenchError: the generator has no Z to draw from, or gives no pictures.
    """
    if Space.Z not in generator.spaces or generator.output != "image":
        raise EditbenchError(f"a card is measured on pictures of random z, and the generator of '{name}' has "
                             f"{', '.join(space.name for space in generator.spaces)} and gives '{generator.output}'")
    card = measure_alone(n, generator, teacher, judge, seed, name)
    return _write(out, card, sheet(_generated(generator, seed, SHEET)))


def _write(out: Path, card: dict, pictures: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pictures).save(buffer, "PNG", optimize=True)
    loader = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    page = loader.get_template("card.html").render(card=card, sheet=base64.b64encode(buffer.getvalue()).decode())
    write_atomic(out / "sheet.png", buffer.getvalue())
    write_json(out / "card.json", card)
    write_atomic(out / "index.html", page)
    return card
