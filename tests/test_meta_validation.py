"""Which samples of the tune split choices are tried on: planted ones, and a slow loop."""

import torch

from editbench.methods.shared.meta_validation import EXAMPLES, meta_validation
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
    assert torch.equal(source, (data.tune.logits[position, 1] > 0).long()) and torch.equal(
        target, 1 - source
    )


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
