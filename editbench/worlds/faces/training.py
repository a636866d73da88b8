"""Training the networks of the `faces` world, from renders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.networks.scorers.convnet import ConvScorer
from editbench.worlds.faces import load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.generator_training import GeneratorSetup, run_training
from editbench.worlds.train_gan import GANTraining

CHANNELS = (64, 64, 48, 32)  # of the generator, at 4, 8, 16 and 32 pixels
# Faces whose true labels give the class shares that training is steered to: a share of one half
# is then known to a tenth of a percent.
STEERING_SAMPLES = 200_000


def read_law(correlations: Sequence[str] | None) -> FactorLaw:
    """The world's law, or one with other correlations.

    Args:
        correlations: each 'a,b=rho'; None: the world's own, an empty list: independent traits.

    Raises:
        EditbenchError: not of that form, or correlations that cannot be.
    """
    if correlations is None:
        return FactorLaw()
    try:
        given = {}
        seen = set()
        for text in correlations:
            pair, equals, rho = text.partition("=")
            if not equals:
                raise ValueError(f"'{text}' has no correlation")
            traits = frozenset(name.strip() for name in pair.split(","))
            # A trait with itself would be another variance, and of two values one would be lost.
            if len(traits) != 2 or traits in seen:
                raise ValueError(f"'{pair}': name two traits, and each pair once")
            seen.add(traits)
            given[pair] = float(rho)
        law = FactorLaw(given)
        law.correlation_matrix()
    except ValueError as error:
        raise EditbenchError(
            f"--correlation {' '.join(correlations)}: {error}; example: age,eyeglasses=0.6"
        ) from error
    return law


def train_generator(
    out: Path, options: GANTraining, law: FactorLaw, resolution: int, setup: GeneratorSetup
) -> None:
    """Train the generator, or go on from its last checkpoint.

    Args:
        out: folder of checkpoint.pt and log.jsonl.
        options: of the training.
        law: of the renders.
        resolution: height and width.
        setup: what the training begins with.

    Raises:
        EditbenchError: an option does not fit the others or the checkpoint.
    """
    try:
        config = setup.architecture(resolution, CHANNELS)
    except ValueError as error:
        raise EditbenchError(f"{error}; set --resolution and --channels together") from error

    def reals(first: int, last: int) -> Tensor:
        factors = sample_factors(law, options.seed, first, last)
        return render(factors.to(setup.device), resolution)

    def labels() -> Tensor:
        return sample_factors(law, options.seed, 0, STEERING_SAMPLES).labels()

    def read_witness(path: Path) -> ConvScorer:
        # The given witness, not the package's: a new world has no package yet.
        return load_scorer("witness", path, setup.device)

    run_training(out, config, options, setup, reals, labels, read_witness)
