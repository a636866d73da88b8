"""The card of a world: does the generator make the faces of the renderer, and can the judge be
believed?

Data labels are known, labels of generated faces are the judge's; so data is shown both as it is
and as judged. The association of two binary attributes is phi (the Pearson correlation of their
0/1 labels); where an attribute with more classes takes part it is Cramer's V, which has no sign
and is about sqrt((K - 1) / n) for independent labels.
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

from editbench.base.attributes import Attributes
from editbench.base.files import write_atomic, write_json
from editbench.base.images import to_uint8
from editbench.base.progress import Advance, progress
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorers.convnet import ConvScorer
from editbench.stats.frechet import frechet_distance
from editbench.worlds.faces import RESOLUTION, load_generator, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.train_scorers import accuracy, agreement

BATCH = 64
SHEET_COLUMNS = 12
SHEET_ROWS = 8
SHEET_ZOOM = 2


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two binary label vectors; 0 where one is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def cramers_v(a: np.ndarray, b: np.ndarray, rows: int, columns: int) -> float:
    """Cramer's V in [0, 1] of two label vectors with the given numbers of classes."""
    table = np.zeros((rows, columns))
    np.add.at(table, (a, b), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    chi2 = np.divide(
        (table - expected) ** 2, expected, out=np.zeros_like(table), where=expected > 0
    ).sum()
    return float(np.sqrt(chi2 / len(a) / (min(rows, columns) - 1)))


def associations(labels: np.ndarray, attributes: Attributes) -> np.ndarray:
    """labels (N, A) -> symmetric (A, A): phi of binary pairs, Cramer's V of the others, 1 on the
    diagonal."""
    matrix = np.eye(len(attributes))
    for i, first in enumerate(attributes):
        for j, second in enumerate(attributes.items[:i]):
            a = labels[:, i]
            b = labels[:, j]
            both = first.binary and second.binary
            matrix[i, j] = matrix[j, i] = (
                phi(a, b) if both else cramers_v(a, b, len(first.classes), len(second.classes))
            )
    return matrix


def marginals(labels: np.ndarray, attributes: Attributes) -> dict[str, list[float]]:
    """Share of every class: labels (N, A) -> {attribute: [share a class]}."""
    return {
        item.name: (np.bincount(labels[:, i], minlength=len(item.classes)) / len(labels)).tolist()
        for i, item in enumerate(attributes)
    }


def largest_gap(a: dict[str, list[float]], b: dict[str, list[float]]) -> float:
    """Largest difference of a class share between two `marginals`."""
    return max(float(np.abs(np.subtract(a[name], b[name])).max()) for name in a)


@torch.inference_mode()
def judged(
    batches: Iterator[Tensor], teacher: ConvScorer, judge: ConvScorer, advance: Advance
) -> dict[str, Tensor]:
    """Logits of teacher and judge and the judge's features of a stream of pictures, on the host."""
    parts: dict[str, list[Tensor]] = {"teacher": [], "judge": [], "features": []}
    for images in batches:
        features = judge.features(images)
        parts["features"].append(features.cpu())
        parts["judge"].append(judge.head(features).cpu())
        parts["teacher"].append(teacher(images).cpu())
        advance(len(images))
    return {name: torch.cat(part) for name, part in parts.items()}


def measure(
    n: int,
    generator: Generator,
    teacher: ConvScorer,
    judge: ConvScorer,
    seed: int = 5_005,
    law: FactorLaw | None = None,
) -> dict:
    """Everything the card shows as numbers, from n renders of a law (default: the world's own), n
    others for the floor, and n generated faces."""
    attributes = judge.attributes
    law = law or FactorLaw()
    dense = replace(law, margin=0.0)
    truth = sample_factors(law, seed, 0, n, "card").labels().numpy()
    streams = (
        _renders(law, seed, 0, n),
        _renders(law, seed, n, 2 * n),
        _generated(generator, seed, n),
    )
    with progress("pictures judged", 3 * n) as advance:
        data, other, made = (judged(stream, teacher, judge, advance) for stream in streams)
    labels = {
        name: attributes.labels(part["judge"]).numpy()
        for name, part in (("data", data), ("generated", made))
    }
    shares = {
        name: marginals(value, attributes) for name, value in (("truth", truth), *labels.items())
    }
    bonds = {
        name: associations(value, attributes) for name, value in (("truth", truth), *labels.items())
    }
    return {
        "world": "faces",
        "n": n,
        "generator": generator.digest,
        "teacher": teacher.digest,
        "judge": judge.digest,
        "attributes": attributes.as_config(),
        "marginals": shares,
        "marginal_gap": largest_gap(shares["truth"], shares["generated"]),
        "associations": {name: value.tolist() for name, value in bonds.items()},
        "association_gap": float(np.abs(bonds["truth"] - bonds["generated"]).max()),
        "accuracy": {
            role: {"world law": accuracy(scorer, law, n), "dense law": accuracy(scorer, dense, n)}
            for role, scorer in (("judge", judge), ("teacher", teacher))
        },
        "agreement": {
            "generated": agreement(made["teacher"], made["judge"], attributes),
            "renders": agreement(data["teacher"], data["judge"], attributes),
        },
        "frechet": {
            "generated": frechet_distance(made["features"], data["features"]),
            "floor": frechet_distance(other["features"], data["features"]),
        },
    }


def _renders(law: FactorLaw, seed: int, start: int, stop: int) -> Iterator[Tensor]:
    for first in range(start, stop, BATCH):
        yield render(sample_factors(law, seed, first, min(first + BATCH, stop), "card"), RESOLUTION)


def _generated(generator: Generator, seed: int, n: int) -> Iterator[Tensor]:
    for first in range(0, n, BATCH):
        z = torch.from_numpy(
            normals(seed, "card/z", first, min(first + BATCH, n), generator.z_dim)
        ).float()
        yield generator.decode(Codes(Space.Z, z))


@torch.inference_mode()
def sheet(batches: Iterator[Tensor]) -> np.ndarray:
    """The pictures of a stream as one (rows R zoom, columns R zoom, 3) uint8 picture."""
    x = to_uint8(torch.cat(list(batches)))
    size = x.shape[-1]
    x = x.view(SHEET_ROWS, SHEET_COLUMNS, 3, size, size).permute(0, 3, 1, 4, 2)
    x = x.reshape(SHEET_ROWS * size, SHEET_COLUMNS * size, 3)
    return x.repeat_interleave(SHEET_ZOOM, 0).repeat_interleave(SHEET_ZOOM, 1).numpy()


def world_card(
    out: Path,
    n: int = 10_000,
    generator: Generator | None = None,
    teacher: ConvScorer | None = None,
    judge: ConvScorer | None = None,
    seed: int = 5_005,
    law: FactorLaw | None = None,
) -> dict:
    """Write index.html (self-contained), card.json and sheet.png (renders left, generated right)
    to `out`.

    What is not given is loaded from the package. Returns the content of card.json.
    """
    generator = generator or load_generator()
    teacher = teacher or load_scorer("teacher")
    judge = judge or load_scorer("judge")
    card = measure(n, generator, teacher, judge, seed, law)
    need = SHEET_COLUMNS * SHEET_ROWS
    left = sheet(_renders(law or FactorLaw(), seed, 0, need))
    right = sheet(_generated(generator, seed, need))
    gutter = np.full((left.shape[0], 16, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([left, gutter, right], 1)).save(buffer, "PNG", optimize=True)
    loader = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = loader.get_template("card.html").render(
        card=card, sheet=base64.b64encode(buffer.getvalue()).decode()
    )
    write_atomic(out / "sheet.png", buffer.getvalue())
    write_json(out / "card.json", card)
    write_atomic(out / "index.html", page)
    return card
