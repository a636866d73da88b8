"""References of the Fréchet distance: renders, banks and folders, whose statistics are kept."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from editbench.base.errors import BadFile, Unsupported
from editbench.metrics.frechet_distance.reference import (
    BankImages,
    Folder,
    ReferenceFeatures,
    Renders,
    statistics,
)
from editbench.networks.features import ScorerFeatures
from editbench.stats.moments import covariance
from editbench.worlds.faces import load_scorer
from editbench.worlds.faces.dial import law
from editbench.worlds.faces.dial import load_generator as load_dial
from editbench.worlds.faces.factors import FactorLaw
from tests.frechet_scene import Normal, Pixels, observation
from tests.processes import forbid_locks
from tests.scenes import scene_of
from tests.toy_world import ToyGenerator, toy_config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("frechet")))


# -- references ------------------------------------------------------------------------------------
def test_statistics_of_a_reference_are_computed_once_and_a_damaged_file_again(context, tmp_path):
    here, reference = replace(context, cache=tmp_path), Normal(shift=0.5)
    real = ReferenceFeatures(here, reference, Pixels(), 50, 4)
    first = statistics(real, 10)
    calls = reference.calls
    again = statistics(real, 10)
    assert reference.calls == calls
    assert all(np.array_equal(first[name], again[name]) for name in first)
    (file,) = (tmp_path / "references").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(statistics(real, 10)["sum"], first["sum"])
    assert reference.calls == 2 * calls
    statistics(replace(real, reference=Normal(shift=0.6)), 10)
    assert len(list((tmp_path / "references").glob("*.safetensors"))) == 2


def test_statistics_that_are_kept_serve_where_nothing_may_be_locked(context, tmp_path):
    real = ReferenceFeatures(replace(context, cache=tmp_path), Normal(), Pixels(), 50, 4)
    first = statistics(real, 10)
    forbid_locks(tmp_path)
    again = statistics(real, 10)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_small_reference_has_no_floor(context, tmp_path):
    here = replace(context, cache=tmp_path)
    real = ReferenceFeatures(here, Normal(count=60), Pixels(), 50, 4)
    assert "floor_sum" not in statistics(real, 10)


def test_renders_and_the_bank_and_a_folder_give_their_pictures(context, tmp_path):
    renders = Renders().images(context, 3, 7, 32)
    assert renders.shape == (4, 3, 32, 32)
    assert torch.equal(renders[2:], Renders().images(context, 5, 7, 32))
    assert Renders(margin=0.2).identity(context) != Renders().identity(context)
    tied = SimpleNamespace(generator=SimpleNamespace(law=law(0.9)))  # of the dial
    assert Renders().law(tied) == law(0.9)
    assert Renders(margin=0.2).law(tied) == replace(law(0.9), margin=0.2)
    assert load_dial(0.9).law == law(0.9) and Renders().law(context) == FactorLaw()
    made = BankImages().images(context, 2, 5, 4).flatten(1)
    torch.testing.assert_close(made, torch.tensor(context.bank.array("w").range(2, 5)))
    # The id of a bank that is given by its path may say nothing of the generator.
    one, other = (
        BankImages().identity(replace(context, generator=ToyGenerator(digest=name)))
        for name in ("one", "other")
    )
    assert one != other
    for k in range(3):
        Image.new("RGB", (8, 8), (100 * k, 255, 0)).save(tmp_path / f"{k}.png")
    found = Folder(str(tmp_path)).images(context, 1, 3, 8)
    assert found.shape == (2, 3, 8, 8)
    assert found[1, :, 0, 0].tolist() == pytest.approx([200 / 127.5 - 1, 1, -1])
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(BadFile, match=r"1\.png"):
        Folder(str(tmp_path)).images(context, 0, 3, 8)


def test_pictures_of_another_kind_are_no_reference(context):
    class Coloured(Normal):
        def images(self, *args):
            return super().images(*args).expand(-1, 3, -1, -1)

    with pytest.raises(
        Unsupported, match=r"'normal' are \(3, 2, 4\), those of the generator \(1, 2, 4\)"
    ):
        observation(reference=Coloured()).look(context)
    with pytest.raises(Unsupported, match="faces of the embedded world, which has no a"):
        observation(reference=None).check(context)


def test_statistics_of_renders_in_the_judges_features_are_those_of_all_at_once(tmp_path):
    network = ScorerFeatures(load_scorer("judge"))
    bare = SimpleNamespace(
        cache=tmp_path, batch=64, device="cpu", generator=None
    )  # all that renders need of a scene
    stats = statistics(ReferenceFeatures(bare, Renders(), network, 150, 32), 100)
    features = network(Renders().images(bare, 0, 150, 32)).numpy().astype(np.float64)
    mean, cov = covariance(float(stats["count"][0]), stats["sum"], stats["outer"])
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cov, np.cov(features, rowvar=False), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stats["features"], features[:100], rtol=1e-4, atol=1e-4)
