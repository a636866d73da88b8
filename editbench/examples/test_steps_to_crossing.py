"""steps_to_crossing keeps the contract of a metric, and counts what it says."""

from steps_to_crossing import StepsToCrossing, draw

from editbench.conformance import conform_metric
from editbench.conformance.walks import make_walks


def test_the_contract():
    results = conform_metric(StepsToCrossing, figure=draw)
    failed = [found.message for found in results if found.status == "failed"]
    assert not failed, "\n".join(failed)


def test_the_number():
    walks = make_walks()
    metric = StepsToCrossing()
    metric.update(walks)
    first = metric.compute().rows.iloc[0]
    steps = []
    for _, walk in walks.table.groupby("start"):
        steps += walk["step"][walk["crossed"]].tolist()[:1]
    assert first["count"] == len(steps)
    assert abs(first["value"] - sum(steps) / len(steps)) < 1e-12
