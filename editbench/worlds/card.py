"""The card of a world: how close its generator comes to the renderer, and how good its judge is.

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
# 96 pictures a side: enough to see what a generator cannot draw.
SHEET_COLUMNS = 12
SHEET_ROWS = 8
SHEET_ZOOM = 2


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two binary label vectors; 0 where one is constant."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def cramers_v(a: np.ndarray, b: np.ndarray, rows: int, columns: int) -> float:
    """Cramer's V in [0, 1] of two label vectors.

    Args:
        a: (N,) labels below `rows`.
        b: (N,) labels below `columns`.
        rows: classes of a.
        columns: classes of b.
    """
    table = np.zeros((rows, columns))
    np.add.at(table, (a, b), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    # A class without members adds nothing.
    terms = np.zeros_like(table)
    np.divide((table - expected) ** 2, expected, out=terms, where=expected > 0)
    chi2 = terms.sum()
    return float(np.sqrt(chi2 / len(a) / (min(rows, columns) - 1)))


def associations(labels: np.ndarray, attributes: Attributes) -> np.ndarray:
    """Labels (N, A) -> symmetric (A, A): phi of binary pairs, Cramer's V of the others."""
    matrix = np.eye(len(attributes))
    for i, first in enumerate(attributes):
        for j, second in enumerate(attributes.items[:i]):
            a = labels[:, i]
            b = labels[:, j]
            if first.binary and second.binary:
                value = phi(a, b)
            else:
                value = cramers_v(a, b, len(first.classes), len(second.classes))
            matrix[i, j] = value
            matrix[j, i] = value
    return matrix


def marginals(labels: np.ndarray, attributes: Attributes) -> dict[str, list[float]]:
    """Share of every class: labels (N, A) -> {attribute: [share a class]}."""
    shares = {}
    for i, item in enumerate(attributes):
        counts = np.bincount(labels[:, i], minlength=len(item.classes))
        shares[item.name] = (counts / len(labels)).tolist()
    return shares


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
        # The judge's logits come from its features: one pass gives both.
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
    """Everything the card shows as numbers.

    Args:
        n: renders, other renders for the floor of the Fréchet distance, and generated faces.
        generator: of the world.
        teacher: of the world.
        judge: of the world.
        seed: of renders and latents.
        law: of the renders; None: the world's own.
    """
    attributes = judge.attributes
    law = law or FactorLaw()
    # Faces at the thresholds, which the law keeps away from.
    dense = replace(law, margin=0.0)
    truth = sample_factors(law, seed, 0, n, "card").labels().numpy()
    with progress("pictures judged", 3 * n) as advance:
        data = judged(_renders(law, seed, 0, n), teacher, judge, advance)
        # Two samples of the same law: their distance is what n pictures cannot resolve.
        other = judged(_renders(law, seed, n, 2 * n), teacher, judge, advance)
        made = judged(_generated(generator, seed, n), teacher, judge, advance)
    labels = {
        "truth": truth,
        "data": attributes.labels(data["judge"]).numpy(),
        "generated": attributes.labels(made["judge"]).numpy(),
    }
    shares = {name: marginals(value, attributes) for name, value in labels.items()}
    bonds = {name: associations(value, attributes) for name, value in labels.items()}
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
        drawn = normals(seed, "card/z", first, min(first + BATCH, n), generator.z_dim)
        yield generator.decode(Codes(Space.Z, torch.from_numpy(drawn).float()))


@torch.inference_mode()
def sheet(batches: Iterator[Tensor]) -> np.ndarray:
    """The pictures of a stream as one (rows R zoom, columns R zoom, 3) uint8 picture."""
    x = to_uint8(torch.cat(list(batches)))
    size = x.shape[-1]
    # (rows, columns, 3, R, R) -> (rows, R, columns, R, 3): pictures become lines of pixels.
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
    """Write index.html, card.json and sheet.png (renders left, generated right) to `out`.

    Args:
        out: the folder.
        n: pictures of each kind.
        generator: None: the package's.
        teacher: None: the package's.
        judge: None: the package's.
        seed: of renders and latents.
        law: of the renders; None: the world's own.

    Returns the content of card.json.
    """
    generator = generator or load_generator()
    teacher = teacher or load_scorer("teacher")
    judge = judge or load_scorer("judge")
    card = measure(n, generator, teacher, judge, seed, law)
    need = SHEET_COLUMNS * SHEET_ROWS
    left = sheet(_renders(law or FactorLaw(), seed, 0, need))
    right = sheet(_generated(generator, seed, need))
    # A white gap between renders and generated faces.
    gutter = np.full((left.shape[0], 16, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([left, gutter, right], 1)).save(buffer, "PNG", optimize=True)
    loader = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    # The picture stands in the page itself, which can then be sent alone.
    picture = base64.b64encode(buffer.getvalue()).decode()
    page = loader.get_template("card.html").render(card=card, sheet=picture)
    write_atomic(out / "sheet.png", buffer.getvalue())
    # The page last: where it is, the numbers are too.
    write_json(out / "card.json", card)
    write_atomic(out / "index.html", page)
    return card
