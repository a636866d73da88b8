"""Which samples of the tune split choices are tried on: planted ones, and a slow loop."""

import pytest
import torch

from editbench.base.spaces import Codes, Space
from editbench.methods.shared.meta_validation import EXAMPLES, meta_validation, score_choices
from editbench.walk.editor import Editor, FitReport
from tests.toy import BINARY, MIXED, fit_data


def test_the_samples_nearest_to_all_boundaries_are_picked_wherever_they_lie():
    """30 planted samples are near to all boundaries; all others are nearer to one and far from another."""
    data = fit_data(BINARY)
    n = len(data.tune)
    data.sigma = torch.tensor([1.0, 2.0, 0.5])
    rng = torch.Generator().manual_seed(0)
    sides = torch.randint(2, (n, 3), generator=rng) * 2 - 1
    distance = 0.01 * torch.rand(n, 3, generator=rng)
    far = torch.randint(3, (n,), generator=rng)
    distance[torch.arange(n), far] = 3 + torch.rand(n, generator=rng)
    planted = torch.randperm(n, generator=rng)[:EXAMPLES]
    distance[planted] = 0.1 + 0.9 * torch.rand(EXAMPLES, 3, generator=rng)
    data.tune.logits = sides * distance * data.sigma
    position, source, target = meta_validation(data, "b")
    assert sorted(position.tolist()) == sorted(planted.tolist())
    assert torch.equal(source, (data.tune.logits[position, 1] > 0).long())
    assert torch.equal(target, 1 - source)


def test_the_order_of_many_classes_is_that_of_a_slow_loop():
    data = fit_data(MIXED, n=400)
    labels = MIXED.labels(data.tune.logits)
    farthest = []
    for n in range(len(data.tune)):
        each = []
        for a, name in enumerate(MIXED.names):
            column, _ = MIXED.column(name, int(labels[n, a]))
            own = MIXED.logits(data.tune.logits, name)[n].tolist()
            lead = abs(own[0])
            if len(own) > 1:  # of the best class over the second best
                best, second = sorted(own)[:-3:-1]
                lead = best - second
            each.append(lead / data.sigma[column].item())
        farthest.append(max(each))
    position, source, target = meta_validation(data, "kind")
    assert position.tolist() == sorted(range(len(farthest)), key=farthest.__getitem__)[:30]
    assert torch.equal(source, labels[position, 1]) and bool((target != source).all())


class Straight(Editor):
    """Steps of a length that is to be chosen, towards the target along a direction."""

    def __init__(self, space: Space, direction: torch.Tensor) -> None:
        super().__init__()
        self.space = space
        self.direction = direction
        self.length = 0.0

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        return walk.codes + self.length * (2 * walk.target[:, None] - 1) * self.direction


@pytest.mark.parametrize("space", [Space.W, Space.Z])
def test_a_choice_scores_the_share_of_clean_crossings_of_a_slow_walk(space):
    data = fit_data(BINARY, overlap=0.8)
    direction = data.teacher.normals[0]
    editor = Straight(space, direction)
    lengths = (0.01, 0.5, 2.0)
    scores, labels = score_choices(
        editor, data, "a", lengths, lambda length: setattr(editor, "length", length)
    )
    position, _, target = meta_validation(data, "a")
    for length in lengths:
        clean = 0
        for place, aim in zip(position.tolist(), target.tolist()):
            codes = data.tune.codes(space)[place : place + 1]
            before = data.tune.logits[place] > 0
            for _ in range(50):
                codes = codes + length * (2 * aim - 1) * direction
                now = data.score(Codes(space, codes))[0] > 0
                if now[0] == aim:
                    clean += int((now[1:] == before[1:]).all())
                    break
        assert scores[length] == clean / EXAMPLES
    # They differ, and some crossings are not clean.
    assert len(set(scores.values())) > 1 and 0 < max(scores.values()) < 1
    assert labels == len(data.tune)
