"""An observation of one's own that breaks the contract is refused before the walk."""

import pytest
import torch

from editbench.base.errors import EditbenchError
from editbench.walk.editor import Walk
from editbench.walk.observation import DuringWalk
from editbench.walk.observation_trial import try_observations
from tests.by_config import record_of
from tests.toy_world import AlongColumn, ToyGenerator, toy_config


class Level(DuringWalk):
    """The difference of the mean level from the start's."""

    def reference(self, decoded):
        return decoded.flatten(1).mean(1, keepdim=True)

    def measure(self, walk, codes, decoded, reference):
        return {"level": decoded.flatten(1).mean(1) - reference[:, 0]}


class Squared(Level):
    """Numbers far from those of the other samples, which are measured exactly all the same."""

    def measure(self, walk, codes, decoded, reference):
        level = super().measure(walk, codes, decoded, reference)["level"]
        return {"level": 1e6 * level**3, "nothing": torch.full_like(level, torch.nan)}


def broken(change):
    """An observation whose column is changed."""

    class Broken(Level):
        def measure(self, walk, codes, decoded, reference):
            return change(super().measure(walk, codes, decoded, reference)["level"])

    return Broken()


def with_reference(change):
    """An observation whose reference is changed."""

    class Broken(Level):
        def reference(self, decoded):
            return change(super().reference(decoded))

    return Broken()


def trial(observation, count=5):
    """Try an observation on a walk of the toy world, which decodes without rounding."""
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    classes = torch.zeros(count, dtype=torch.int64)
    w = 2 * z
    walk = Walk("a", torch.arange(count), w, w, classes, classes + 1, latent=w)
    try_observations({"mine": observation}, AlongColumn(), walk, ToyGenerator())


BROKEN = {
    r"measure must return a mapping .* not Tensor": broken(lambda x: x),
    r"a column named 3": broken(lambda x: {3: x}),
    r"column 'step', which trajectories have": broken(lambda x: {"step": x}),
    # The judge's logits would silently take its place.
    r"column 'logit:a', which trajectories have": broken(lambda x: {"logit:a": x}),
    r"returns ndarray for 'level'": broken(lambda x: {"level": x.numpy()}),
    r"returns float for 'level'": broken(lambda x: {"level": 1.0}),
    r"returns \(3, 1\) for 'level' of 3 samples.*\(3,\)": broken(lambda x: {"level": x[:, None]}),
    r"returns \(1,\) for 'level' of 3 samples": broken(lambda x: {"level": x[:1]}),
    r"torch.complex64": broken(lambda x: {"level": x.to(torch.complex64)}),
    r"columns level, more for 3 samples and level for one": broken(
        lambda x: {"level": x} | ({"more": x} if len(x) > 1 else {})
    ),
    r"other numbers alone": broken(lambda x: {"level": x - x.mean()}),
    r"draw no random numbers": broken(lambda x: {"level": torch.rand_like(x)}),
    r"reference must return a tensor .* not NoneType": with_reference(lambda x: None),
    r"reference returns the shape \(1, 1\) for 3 starts": with_reference(lambda x: x[:1]),
    r"reference returns the shape \(3,\) for 3 starts: \(3, e\)": with_reference(lambda x: x[:, 0]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_breaks_the_contract_is_refused_by_name(message):
    with pytest.raises(EditbenchError, match=f"^observation mine: Broken.*{message}"):
        trial(BROKEN[message])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_sound_observations_pass_and_the_random_state_stays(count):
    before = torch.random.get_rng_state()
    for observation in (Level(), Squared()):
        trial(observation, count)
    assert torch.equal(torch.random.get_rng_state(), before)


class Mixing(Level):
    """A job of the toy world is run with it."""

    def measure(self, walk, codes, decoded, reference):
        return {"level": decoded.flatten(1).mean(1) - decoded.mean()}


def test_a_job_fails_before_its_walk_and_counts_no_trial(tmp_path):
    def job(kind, folder):
        target = f"{__name__}.{getattr(kind, '__name__', '')}"
        config = toy_config(tmp_path / folder)
        config.observation = {"mine": {"_target_": target}} if kind is not None else {}
        return record_of(config)

    refused = job(Mixing, "mixing")
    assert refused.status["status"] == "failed"
    assert "observation mine: Mixing.measure" in refused.status["reason"]
    calls = [
        job(kind, folder).provenance()["generator_calls"]
        for kind, folder in ((Level, "with"), (None, "without"))
    ]
    assert calls[0] == calls[1]
