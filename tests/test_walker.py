"""The one walk: steps in order, each computed once, samples dropped or held as the caller says."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.conformance.toy import fit_data, make_walk
from editbench.walk.editor import Editor, FitReport, Walk
from editbench.walk.strength import StrengthPath
from editbench.walk.walker import StridedWalker, Walker, refuse_mixing, walk_own_lengths
from tests.linear_walks import PLAIN, setup
from tests.linear_walks import walk as walk_in_engine


class Turning(Editor):
    """A step that depends on where the sample is and on its start, so that no two are alike."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        self.calls.append((walk.steps, len(walk)))
        return walk.codes + 0.1 * walk.codes.roll(1, 1) + 1e-3 * walk.start[:, None]


@pytest.fixture
def walk():
    return make_walk(fit_data(n=300), Space.W, "a", n=6)


def by_hand(walk, steps):
    """Codes of one walk of some steps, straight from the editor's formula."""
    codes = walk.codes
    for _ in range(steps):
        codes = codes + 0.1 * codes.roll(1, 1) + 1e-3 * walk.start[:, None]
    return codes


def test_steps_end_at_the_last_one_and_leave_the_first_walk_as_it_was(walk):
    editor = Turning()
    before = walk.codes.clone()
    walker = Walker(editor, walk)
    seen = [(here.steps, here.codes) for here in walker.steps(3)]
    assert [number for number, _ in seen] == [1, 2, 3] and list(walker.steps(3)) == []
    for number, codes in seen:
        assert torch.equal(codes, by_hand(walk, number))
    assert torch.equal(walk.codes, before) and walk.steps == 0
    assert torch.equal(walker.codes().values, by_hand(walk, 3))


@pytest.mark.parametrize("stride", [0.4, 1.0, 2.5])
def test_a_stride_leads_along_the_same_path(walk, stride):
    """Codes between two own steps are interpolated, also for samples that others leave."""
    editor = Turning()
    walker = StridedWalker(editor, walk, stride)
    for here in walker.steps(6):
        whole = int(here.steps * stride)
        rest = here.steps * stride - whole
        own = walk[-len(here) :]
        expected = by_hand(own, whole) * (1 - rest) + by_hand(own, whole + 1) * rest
        torch.testing.assert_close(here.codes, expected)
        walker.keep(torch.arange(len(here)) >= here.steps % 2)
    assert here.steps == 6 and len(here) == 3
    # Each own step once.
    steps = [number for number, _ in editor.calls]
    assert steps == list(range(len(steps)))


def test_samples_that_are_not_kept_are_not_stepped(walk):
    editor = Turning()
    walker = Walker(editor, walk)
    for here in walker.steps(10):
        walker.keep(torch.arange(len(here)) >= 2)  # two fewer after every step
    assert editor.calls == [(0, 6), (1, 4), (2, 2)] and len(walker.walk) == 0


def test_a_step_that_was_looked_at_is_not_computed_again(walk):
    editor = Turning()
    walker = Walker(editor, walk)
    ahead = walker.peek()
    assert walker.walk.steps == 0 and walker.step() is ahead and len(editor.calls) == 1
    walker.peek()
    walker.keep(torch.tensor([0, 4]))
    assert torch.equal(walker.step().codes, by_hand(walk, 2)[[0, 4]])


def test_each_sample_walks_its_own_length_and_the_batch_stays_whole(walk):
    editor = Turning()
    lengths = torch.tensor([0, 3, 1, 0, 2, 3])
    ends = walk_own_lengths(editor, walk, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(ends[row], by_hand(walk, length)[row])
    assert editor.calls == [(0, 6), (1, 6), (2, 6)]
    assert torch.equal(walk_own_lengths(editor, walk, torch.zeros(6, dtype=int)), walk.codes)


def test_codes_of_another_shape_are_refused(walk):
    class Wide(Turning):
        def step(self, walk):
            return torch.cat([walk.codes, walk.codes], 1)

    with pytest.raises(EditbenchError, match=r"Wide.step returned codes of shape \(6, 48\)"):
        Walker(Wide(), walk).step()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda codes: None, "step returned NoneType, expected a tensor"),
        (
            lambda codes: codes.double(),
            r"expected torch.float32 on cpu: end with .to\(walk.codes\)",
        ),
    ],
)
def test_a_step_that_gives_no_codes_of_its_kind_is_refused(walk, result, message):
    class Other(Turning):
        def step(self, walk):
            return result(walk.codes)

    with pytest.raises(EditbenchError, match=message):
        Walker(Other(), walk).step()


@pytest.mark.parametrize("stride", [None, 0.3, 2.5])
@pytest.mark.parametrize("part", ["codes", "origin", "latent"])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_step_that_works_in_place_is_refused(part, stride, first):
    """The path would be 0, and with a layer range the rows out of reach would move as well.

    Args:
        part: of the walk that is changed.
        stride: own steps in a step of the walk.
        first: step at which it is changed first.
    """

    class InPlace(Turning):
        def step(self, walk):
            codes = walk.codes + 0.1
            if walk.steps >= first:
                getattr(walk, part).add_(0.1)
            return codes

    with pytest.raises(EditbenchError, match=r"InPlace\.step changes the walk"):
        walk_in_engine(InPlace(), spec=PLAIN, stride=stride)


@pytest.mark.parametrize("stride", [None, 0.3, 2.5])
def test_codes_that_are_made_in_place_are_refused(stride):
    """The walk would go on from the codes that were only meant to be decoded."""

    class InPlace(Turning):
        def codes(self, walk):
            if walk.steps:
                walk.codes.mul_(0.5)
            return super().codes(walk)

    with pytest.raises(EditbenchError, match=r"InPlace\.codes changes the walk"):
        walk_in_engine(InPlace(), spec=PLAIN, stride=stride)


def test_work_in_place_is_refused_on_the_way_to_a_strength(walk):
    """Curves over strength and `find_stride` walk without the engine."""

    class InPlace(Turning):
        def step(self, walk):
            if walk.steps:
                walk.codes.add_(0.1)
            return walk.codes + 0.1

    path = StrengthPath(InPlace(), walk)
    path.at(1)
    with pytest.raises(EditbenchError, match=r"InPlace\.step changes the walk"):
        path.at(2)


def test_the_engine_gives_the_codes_at_which_each_start_ended(tmp_path):
    file = tmp_path / "codes.parquet"
    result = walk_in_engine(spec=PLAIN, codes_file=file)
    stored = pq.read_table(file).to_pandas()
    last = stored.sort_values(["start", "step"]).groupby("start").tail(1)
    assert last["start"].tolist() == setup()[2].index.tolist()
    np.testing.assert_array_equal(result.codes.numpy(), np.stack(last["codes"].to_list()))


# -- steps that depend on more than the sample -----------------------------------------------------
class Centred(Editor):
    """Walks away from the mean of the batch."""

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        return walk.codes + F.normalize(walk.codes - walk.codes.mean(0), dim=-1) + 0.5


class Shaken(Centred):
    def step(self, walk):
        return walk.codes + 0.5 + 0.2 * torch.randn_like(walk.codes)


class Counting(Centred):
    """Makes shorter steps from call to call."""

    calls = 0

    def step(self, walk):
        self.calls += 1
        return walk.codes + 0.5 / self.calls


class Straight(Centred):
    def step(self, walk):
        return walk.codes + 0.5


class Resting(Centred):
    """Projects the codes to their sphere, on which they are already: only rounding differs."""

    def step(self, walk):
        length = walk.codes.norm(dim=1, keepdim=True)
        # The last digits depend on the batch, as those of a matrix product may.
        return walk.codes / length * length * (1 + 1e-7 * len(walk))


class Spoiling(Centred):
    """One walk becomes NaN, which is a result."""

    def step(self, walk):
        return torch.where(walk.start[:, None] == 0, torch.nan, walk.codes + 0.5)


def few_samples(count):
    codes = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(count, dtype=torch.int64)
    return Walk("a", torch.arange(count), codes, codes, label, label + 1)


@pytest.mark.parametrize("editor", [Centred(), Shaken(), Counting()])
def test_a_step_that_depends_on_its_batch_or_on_chance_is_refused(editor):
    with pytest.raises(EditbenchError, match="other codes alone than in a batch"):
        refuse_mixing(editor, few_samples(5))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("editor", [Straight(), Resting(), Spoiling()])
def test_a_step_of_each_sample_alone_is_accepted(editor, count):
    walk = few_samples(count)
    state = torch.random.get_rng_state()
    refuse_mixing(editor, walk)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(walk.codes, walk.origin) and walk.steps == 0
