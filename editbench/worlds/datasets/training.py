"""A world from a data set: images for the GAN, batches for teacher and judge, and their YAML.

Teacher and judge are trained on disjoint halves of the data, and both are tested on a tenth that
neither has seen. The split is random, since the order of MPI3D is that of its factors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.conf import group_options
from editbench.base.errors import EditbenchError
from editbench.base.files import digest, lock, read_json, write_atomic, write_json
from editbench.base.seeding import stream_key
from editbench.base.validation import near_powers_of_two
from editbench.networks.scorer import Scorer
from editbench.worlds.datasets.packed import Epochs, Packed
from editbench.worlds.train_scorers import ROLES, ScorerTraining, augment

HELD_OUT = 0.1
# Share of training pictures that are not augmented, since a data set has faults of its own.
CLEAN = 0.5
BATCH = 250
MEASURED = 20_000  # held-out pictures at most
NO_WORDS = ("null", "true", "false", "nan", "inf")  # Hydra reads them, and numbers, as values
TRAINED = "trained.json"  # OUT/trained.json: role -> digest of its data


def gan_channels(resolution: int) -> list[int]:
    """Widths at 4, 8, ..., resolution pixels: 64, and 48 and 32 at the end."""
    # At 32 pixels (64, 64, 48, 32), as the faces' generator has.
    blocks = max(1, resolution.bit_length() - 2)
    return ([64] * blocks + [48, 32])[-blocks:]


def scorer_training(role: str, resolution: int) -> ScorerTraining:
    """The hyperparameters of a role for pictures of this size.

    Its network halves the resolution until 4 pixels are left (2 if it begins at 16 pixels).

    Args:
        role: 'teacher', 'judge' or 'witness'.
        resolution: height and width of the pictures.

    Raises:
        EditbenchError: the resolution is not a power of two of 16 or more.
    """
    recipe = ROLES[role]
    if resolution < 16 or resolution & (resolution - 1):
        raise EditbenchError(
            "a world is trained on images of 16, 32, 64, ... pixels, but the data have "
            f"{resolution}: pack them with another --resolution, "
            f"{near_powers_of_two(resolution, 16)}"
        )
    # One halving for each factor of two above 4 pixels; log2 of the resolution is bit_length - 1.
    deeper = max(0, resolution.bit_length() - 3 - len(recipe.widths))
    widths = recipe.widths + recipe.widths[-1:] * deeper
    # `reuse` saves renders; packed pictures need none.
    return replace(recipe, resolution=resolution, widths=widths, reuse=1)


def reals(data: Packed, seed: int) -> Callable[[int, int], Tensor]:
    """The GAN's stream of real images, in a new order every epoch.

    Args:
        data: the pictures.
        seed: of the orders.

    Returns:
        A function (start, stop) -> items start..stop-1 of the stream, (stop - start, 3, R, R).
    """
    order = Epochs(len(data), seed, "reals")
    return lambda start, stop: data.images(order.take(start, stop))


def split(n: int, twins: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Disjoint rows of 'held_out', 'teacher' and 'judge', fixed by the number of pictures.

    Args:
        n: pictures.
        twins: (n,) the first row with the same picture (Packed.twins); all rows of a picture go
            where that one goes. None: all pictures differ.
    """
    # The held-out part first; teacher and judge divide the rest.
    held = round(HELD_OUT * n)
    half = (n - held) // 2
    order = seeding.rng(0, "dataset", "split").permutation(n)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    # The part of a row is that of its first twin.
    part = np.digitize(place if twins is None else place[twins], (held, held + half))[order]
    rows = {}
    for k, name in enumerate(("held_out", "teacher", "judge")):
        rows[name] = order[part == k]
    if not all(map(len, rows.values())):
        raise EditbenchError(f"{n} pictures are too few for a teacher, a judge and held-out ones")
    return rows


def scorer_batches(data: Packed, options: ScorerTraining) -> Callable[[int], tuple[Tensor, Tensor]]:
    """The training batches of a role.

    They come from the role's own half of the data. The witness is trained on the teacher's half,
    since the generator that it helps to train is evaluated by the judge.

    Args:
        data: pictures and labels.
        options: role, seed and batch size.

    Returns:
        step -> augmented pictures (batch, 3, R, R) and labels (batch, A).

    Raises:
        EditbenchError: the data have no labels, or too few pictures.
    """
    _, labels = data.labelled()
    part = "teacher" if options.role == "witness" else options.role
    own = split(len(data), data.twins)[part]
    order = Epochs(own, options.seed, f"scorer/{options.role}")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = order.take(step * options.batch, (step + 1) * options.batch)
        # torch's seeds have 63 bits, the keys of streams 128.
        key = stream_key(options.seed, f"augment/{options.role}/{step}")
        random = torch.Generator().manual_seed(key >> 65)
        return augment(data.images(rows), random, CLEAN), torch.from_numpy(labels[rows])

    return batch


@torch.inference_mode()
def held_out_accuracy(scorer: Scorer, data: Packed, device: str) -> dict[str, float]:
    """Share of right labels of each attribute on pictures that neither role was trained on.

    Args:
        scorer: of the data's attributes, on the device.
        data: of which at most MEASURED held-out pictures are scored.
        device: of the scorer.
    """
    attributes, labels = data.labelled()
    rows = split(len(data), data.twins)["held_out"][:MEASURED]
    right = torch.zeros(len(attributes), dtype=torch.float64)
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        found = attributes.labels(scorer(data.images(part).to(device))).cpu()
        right += (found == torch.from_numpy(labels[part])).double().sum(0)
    return dict(zip(attributes.names, (right / len(rows)).tolist()))


def commonest(data: Packed) -> dict[str, float]:
    """Accuracy on the same pictures of always predicting the most common class, by attribute."""
    attributes, labels = data.labelled()
    rows = split(len(data), data.twins)["held_out"][:MEASURED]
    shares = {}
    for i, name in enumerate(attributes.names):
        most_common = np.bincount(labels[:, i]).argmax()
        shares[name] = float((labels[rows, i] == most_common).mean())
    return shares


def weights_path(out: Path, part: str, data: Packed) -> Path:
    """Where a world keeps the weights of a network.

    Args:
        out: folder of the world.
        part: 'generator', 'teacher', 'judge' or 'witness'.
        data: whose resolution is in the name of the file.
    """
    return out / f"{part}{data.resolution}.safetensors"


def check_apart(out: Path, roles: Sequence[str], data: Packed) -> None:
    """Check that the roles that are not trained now were trained on the same data.

    Args:
        out: folder of the world.
        roles: those that are trained now.
        data: for them.

    Raises:
        EditbenchError: a role was trained on other data.
    """
    # The split depends on the data, so halves of different data could overlap.
    path = out / TRAINED
    seen = read_json(path) if path.exists() else {}
    for role in set(ROLES) - set(roles):
        weights = weights_path(out, role, data)
        if not weights.exists():
            continue
        found = _trained_on(data)
        if seen.get(role) != found:
            raise EditbenchError(
                f"{weights} was trained on other pictures or attributes ({seen.get(role)} there, "
                f"{found} here), which may overlap: train both roles again, or give another --out"
            )


def note_trained(out: Path, role: str, data: Packed) -> None:
    """Record in OUT/trained.json which data a role was trained on.

    Args:
        out: folder of the world.
        role: that was trained; the entries of other roles remain.
        data: of the training.
    """
    path = out / TRAINED
    # Teacher and judge may be trained by two processes at the same time.
    with lock(path):
        seen = read_json(path) if path.exists() else {}
        write_json(path, seen | {role: _trained_on(data)})


def _trained_on(data: Packed) -> str:
    """Digest of pictures, split and the attributes chosen."""
    return digest([data.digest, data.labelled()[0].as_config()])


# -- configuration ------------------------------------------------------------
def check_name(name: str) -> str:
    """A name for generator=NAME and scorer=NAME that the package does not use itself."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name.lower() in NO_WORDS:
        raise EditbenchError(
            f"--name must consist of letters, digits, _ and -, a letter first, got '{name}'"
        )
    for group in ("generator", "scorer"):
        # The package's own option would win, silently.
        if name in group_options(group):
            raise EditbenchError(
                f"--name {name}: {group}={name} is an option of the package; give another name"
            )
    return name


def write_generator_conf(out: Path, name: str, weights: Path, about: str) -> Path:
    """Write OUT/conf/generator/NAME.yaml, so that generator=NAME is an option.

    Args:
        out: folder of the world.
        name: of the option.
        weights: file of the generator.
        about: one sentence for the list of options.

    Returns:
        Path of the YAML file.
    """
    return _write(
        out / "conf" / "generator" / f"{name}.yaml",
        {
            "name": name,
            "about": about,
            "_target_": "editbench.networks.stylegan2.generator.StyleGAN2Generator.from_file",
            # Absolute, so that the YAML file works from any folder.
            "path": str(weights.resolve()),
            "truncation_psi": 1.0,
        },
    )


def write_scorer_conf(
    out: Path, name: str, teacher: Path, judge: Path, attributes: Attributes
) -> Path:
    """Write OUT/conf/scorer/NAME.yaml, so that scorer=NAME is an option.

    Args:
        out: folder of the world.
        name: of the option.
        teacher: file of its weights.
        judge: file of its weights.
        attributes: that both score.

    Returns:
        Path of the YAML file.
    """
    target = "editbench.networks.scorers.convnet.ConvScorer.from_file"
    return _write(
        out / "conf" / "scorer" / f"{name}.yaml",
        {
            "name": name,
            "about": f"Teacher and judge trained apart on {name}: {', '.join(attributes.names)}.",
            # Absolute, as in the YAML file of the generator.
            "teacher": {"_target_": target, "path": str(teacher.resolve())},
            "judge": {"_target_": target, "path": str(judge.resolve())},
        },
    )


def _write(path: Path, content: dict) -> Path:
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, width=1000, allow_unicode=True))
    return path
