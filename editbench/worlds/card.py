"""The card of a world: how similar its generator is to the renderer, and how good its judge is.

The labels of renders are known, those of generated faces are the judge's. For comparison, renders
are listed with both. The association of two binary attributes is phi (the Pearson correlation of
their 0/1 labels). If one of them has more classes, it is Cramer's V, which has no sign and is about
sqrt((K - 1) / n) for independent labels.
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
from editbench.base.devices import device_of
from editbench.base.errors import EditbenchError
from editbench.base.files import create_folder, write_atomic, write_json
from editbench.base.images import to_host_bytes
from editbench.base.progress import Advance, progress
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.roles import Networks
from editbench.networks.scorers.convnet import ConvScorer
from editbench.stats.frechet import frechet_distance, moments
from editbench.worlds.criteria import criteria
from editbench.worlds.faces import RESOLUTION
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.separability import path_lengths, separability
from editbench.worlds.train_scorers import agreement

SEED = 5_005  # of renders and latents
BATCH = 64
# Margin of renders with unambiguous labels: half-way from a threshold to the class centre.
UNDISPUTED = 0.5
PATHS = 1000  # faces whose path length is taken
# 96 pictures of each kind are enough to see what a generator cannot draw.
SHEET_COLUMNS = 12
SHEET_ROWS = 8
SHEET = SHEET_COLUMNS * SHEET_ROWS
SHEET_ZOOM = 2


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two binary label vectors; 0 where one is constant.

    Args:
        a: (N,) labels 0 and 1.
        b: (N,) likewise.
    """
    # The correlation divides by both deviations.
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
    """Association of every two attributes: phi of binary pairs, Cramer's V of the others.

    Args:
        labels: (N, A) classes.
        attributes: the A attributes, in the order of the columns.

    Returns:
        (A, A), symmetric, with 1 on the diagonal.
    """
    matrix = np.eye(len(attributes))
    for i, first in enumerate(attributes):
        # The table is symmetric, and its diagonal is 1.
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
    """Share of every class.

    Args:
        labels: (N, A) classes.
        attributes: the A attributes, in the order of the columns.

    Returns:
        attribute -> shares in the order of its classes, which sum to 1.
    """
    shares = {}
    for i, item in enumerate(attributes):
        # A class without members has a share too, 0.
        counts = np.bincount(labels[:, i], minlength=len(item.classes))
        shares[item.name] = (counts / len(labels)).tolist()
    return shares


def largest_gap(a: dict[str, list[float]], b: dict[str, list[float]]) -> float:
    """Largest absolute difference of a class share between two `marginals`.

    Args:
        a: attribute -> shares.
        b: the same for at least these attributes.
    """
    return max(float(np.abs(np.subtract(a[name], b[name])).max()) for name in a)


@torch.inference_mode()
def score_images(
    batches: Iterator[Tensor], networks: Networks, advance: Advance
) -> dict[str, Tensor]:
    """Score pictures with teacher and judge.

    Args:
        batches: pictures (n, 3, R, R) in [-1, 1].
        networks: teacher and judge.
        advance: called with the number of pictures of each batch.

    Returns:
        On the host: logits (N, width) of `teacher` and `judge`; `features` (N, e) of the judge if
        it has any.
    """
    judge = networks.judge
    parts: dict[str, list[Tensor]] = {"teacher": [], "judge": [], "features": []}
    for images in batches:
        if isinstance(judge, ConvScorer):
            # The judge's logits are computed from its features, so one pass gives both.
            features = judge.features(images)
            parts["features"].append(features.cpu())
            parts["judge"].append(judge.head(features).float().cpu())
        else:
            parts["judge"].append(judge(images).cpu())
        parts["teacher"].append(networks.teacher(images).cpu())
        advance(len(images))
    return {name: torch.cat(part) for name, part in parts.items() if part}


def measure(n: int, networks: Networks, law: FactorLaw, seed: int = SEED) -> dict:
    """Measure all numbers on the card of the faces' world.

    Args:
        n: number of renders, of other renders for the smallest Fréchet distance that can be
            resolved, and of generated faces.
        networks: of the world; the judge has features.
        law: of the renders.
        seed: of renders and latents.
    """
    attributes = networks.judge.attributes
    clear_law = replace(law, margin=UNDISPUTED)
    with progress("pictures judged", 4 * n) as advance:
        data = score_images(_renders(law, seed, 0, n), networks, advance)
        clear = score_images(_renders(clear_law, seed, 0, n), networks, advance)
        # The distance between two samples of one law is the smallest that n pictures resolve.
        other = score_images(_renders(law, seed, n, 2 * n), networks, advance)
        made = score_images(_generated(networks.generator, seed, n), networks, advance)
    # A margin changes amounts but no classes, so these are the labels of both laws.
    truth = sample_factors(law, seed, 0, n, "card").labels().numpy()
    card = _measure_generated(made, n, networks, seed)
    data_labels = attributes.labels(data["judge"]).numpy()
    for name, labels in (("truth", truth), ("data", data_labels)):
        card["marginals"][name] = marginals(labels, attributes)
        card["associations"][name] = associations(labels, attributes).tolist()
    card["world"] = "faces"
    card["marginal_gap"] = largest_gap(card["marginals"]["truth"], card["marginals"]["generated"])
    true_associations = np.array(card["associations"]["truth"])
    gaps = np.abs(true_associations - np.array(card["associations"]["generated"]))
    card["association_gap"] = float(gaps.max())
    card["agreement"]["renders"] = agreement(data["teacher"], data["judge"], attributes)
    card["accuracy"] = {}
    for role in ("judge", "teacher"):
        card["accuracy"][role] = {
            "world law": _shares_right(data[role], truth, attributes),
            "undisputed": _shares_right(clear[role], truth, attributes),
        }
    card["frechet"] = {
        "generated": frechet_distance(made["features"], data["features"]),
        "floor": frechet_distance(other["features"], data["features"]),
        "variance": float(np.trace(moments(data["features"])[1])),
    }
    card["bars"] = [criterion.as_dict() for criterion in criteria(card)]
    return card


def _shares_right(logits: Tensor, truth: np.ndarray, attributes: Attributes) -> dict[str, float]:
    """Share of right labels of each attribute; logits (N, width), truth (N, A) classes."""
    right = (attributes.labels(logits).numpy() == truth).mean(0)
    return dict(zip(attributes.names, right.tolist()))


def _measure_generated(made: dict[str, Tensor], n: int, networks: Networks, seed: int) -> dict:
    """The part of a card that needs no renders.

    Args:
        made: result of `score_images` for the generated pictures.
        n: number of generated pictures.
        networks: of the world.
        seed: of the latents.
    """
    generator = networks.generator
    attributes = networks.judge.attributes
    labels = attributes.labels(made["judge"]).numpy()
    z = torch.cat([codes.values for codes in _codes(generator, seed, n)])
    spaces = {"Z": z}
    if Space.W in generator.spaces:
        with torch.inference_mode():
            spaces["W"] = generator.map(z)
    # The rest is computed on the host.
    spaces = {space: codes.cpu() for space, codes in spaces.items()}
    card = {
        "n": n,
        "generator": generator.digest,
        "teacher": networks.teacher.digest,
        "judge": networks.judge.digest,
        "attributes": attributes.as_config(),
        "marginals": {"generated": marginals(labels, attributes)},
        "associations": {"generated": associations(labels, attributes).tolist()},
        "agreement": {"generated": agreement(made["teacher"], made["judge"], attributes)},
        "separability": {
            space: separability(codes.numpy(), made["teacher"], made["judge"], attributes)
            for space, codes in spaces.items()
        },
    }
    if "W" in spaces and generator.output == "image":
        lengths = path_lengths(generator, min(n, PATHS), seed)
        card["path_length"] = {
            "mean": float(lengths.mean()),
            "spread": float(lengths.std() / lengths.mean()),
        }
    return card


def _renders(law: FactorLaw, seed: int, start: int, stop: int) -> Iterator[Tensor]:
    for first in range(start, stop, BATCH):
        yield render(sample_factors(law, seed, first, min(first + BATCH, stop), "card"), RESOLUTION)


def _codes(generator: Generator, seed: int, n: int) -> Iterator[Codes]:
    device = device_of(generator)
    for first in range(0, n, BATCH):
        z = normals(seed, "card/z", first, min(first + BATCH, n), generator.z_dim)
        yield Codes(Space.Z, torch.from_numpy(z).float().to(device))


def _generated(generator: Generator, seed: int, n: int) -> Iterator[Tensor]:
    for codes in _codes(generator, seed, n):
        yield generator.decode(codes)


@torch.inference_mode()
def sheet(batches: Iterator[Tensor]) -> np.ndarray:
    """The pictures of a stream as one (rows H zoom, columns W zoom, 3) uint8 picture."""
    x = to_host_bytes(torch.cat(list(batches)))
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    height, width = x.shape[2:]
    # Large pictures are not enlarged.
    zoom = SHEET_ZOOM if width <= 64 else 1
    # (rows, columns, 3, H, W) -> (rows, H, columns, W, 3): pictures become lines of pixels.
    x = x.unflatten(0, (SHEET_ROWS, SHEET_COLUMNS)).permute(0, 3, 1, 4, 2)
    x = x.reshape(SHEET_ROWS * height, SHEET_COLUMNS * width, 3)
    return x.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1).numpy()


def world_card(out: Path, n: int, networks: Networks, law: FactorLaw) -> dict:
    """Write index.html, card.json and sheet.png (renders left, generated right) to `out`.

    Args:
        out: the folder.
        n: pictures of each kind.
        networks: of the faces' world.
        law: of the renders.

    Returns:
        The content of card.json.
    """
    create_folder(out)  # before the minutes that it takes to measure
    card = measure(n, networks, law)
    left = sheet(_renders(law, SEED, 0, SHEET))
    right = sheet(_generated(networks.generator, SEED, SHEET))
    # A white gap between renders and generated faces.
    gutter = np.full((left.shape[0], 16, 3), 255, np.uint8)
    return _write(out, card, np.concatenate([left, gutter, right], 1))


def other_card(out: Path, n: int, networks: Networks, name: str) -> dict:
    """Write the card of a world without a renderer: a user's own world or an imported network.

    Args:
        out: the folder.
        n: number of generated pictures.
        networks: of the world.
        name: of the world.

    Raises:
        EditbenchError: the generator has no Z to draw from, or gives no pictures.
    """
    generator = networks.generator
    if Space.Z not in generator.spaces or generator.output != "image":
        raise EditbenchError(
            f"a card is measured on images of random z, but the generator of '{name}' has "
            f"{', '.join(space.name for space in generator.spaces)} and returns "
            f"'{generator.output}'"
        )
    create_folder(out)
    with progress("pictures judged", n) as advance:
        made = score_images(_generated(generator, SEED, n), networks, advance)
    card = _measure_generated(made, n, networks, SEED)
    card["world"] = name
    card["bars"] = [criterion.as_dict() for criterion in criteria(card)]
    return _write(out, card, sheet(_generated(generator, SEED, SHEET)))


def _write(out: Path, card: dict, pictures: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pictures).save(buffer, "PNG", optimize=True)
    loader = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    # The picture is embedded, so that the page is a single file.
    picture = base64.b64encode(buffer.getvalue()).decode()
    page = loader.get_template("card.html").render(card=card, sheet=picture)
    write_atomic(out / "sheet.png", buffer.getvalue())
    # The page is written last, so that it never exists without its numbers.
    write_json(out / "card.json", card)
    write_atomic(out / "index.html", page)
    return card
