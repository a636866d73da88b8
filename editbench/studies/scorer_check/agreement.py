"""Agreement of two scorers on attributes of the same name, over the same pictures."""

from __future__ import annotations

import pandas as pd
import torch

from editbench.stats.agreement import cohen_kappa
from editbench.studies.scorer_check.checkup import Checkup, ScorerFinding, correlations

# Correlations below these are reported. With 100 pictures or more, chance does not explain -0.2.
FLIPPED = -0.2
LOW = 0.5


def compare(first: Checkup, second: Checkup) -> tuple[pd.DataFrame, list[ScorerFinding]]:
    """Compare two scorers on the attributes that both have, by name.

    Pictures without finite logits of both are left out.

    Args:
        first: of one scorer.
        second: of the other scorer, over the same pictures.

    Returns:
        table: one row per attribute, with the share of equal classes, Cohen's kappa, and the
            correlation of log-odds (the lowest over classes, if there are more than two).
        findings: attributes on which the scorers disagree.
    """
    # NaN would make every correlation NaN.
    fine = torch.isfinite(first.logits).all(1) & torch.isfinite(second.logits).all(1)
    rows = []
    findings = []
    for item in first.attributes:
        if item.name not in second.attributes.names or not bool(fine.any()):
            continue
        # Attributes with different classes cannot be compared.
        other = second.attributes[item.name]
        if other.classes != item.classes:
            findings.append(
                ScorerFinding(
                    "error",
                    item.name,
                    f"{first.role} has the classes {', '.join(item.classes)} and "
                    f"{second.role} {', '.join(other.classes)}: give both the "
                    "same, in the same order, negative side first",
                )
            )
            continue
        a, b = (
            part.attributes.logits(part.attributes.log_odds(part.logits[fine]), item.name)
            for part in (first, second)
        )
        # The lowest correlation over classes, since disagreement on one class matters.
        r = float(correlations(torch.cat([a, b], 1))[: item.width, item.width :].diagonal().min())
        classes = first.attributes.labels(first.logits[fine], item.name)
        others = second.attributes.labels(second.logits[fine], item.name)
        same = float((classes == others).double().mean())
        kappa = cohen_kappa(classes.cpu().numpy(), others.cpu().numpy())
        rows.append({"attribute": item.name, "agreement": same, "kappa": kappa, "correlation": r})
        if r < FLIPPED:
            findings.append(
                ScorerFinding(
                    "error",
                    item.name,
                    f"{first.role} and {second.role} point opposite ways (r = "
                    f"{r:.2f}, {same:.0%} agree): one of them has its sign flipped "
                    "(positive_is_low), or its classes in the other order",
                )
            )
        elif r < LOW:
            findings.append(
                ScorerFinding(
                    "warning",
                    item.name,
                    f"{first.role} and {second.role} agree little (r = {r:.2f}, "
                    f"{same:.0%}): one of them may score something else",
                )
            )
    table = pd.DataFrame(
        rows, columns=["attribute", "agreement", "kappa", "correlation"]
    ).set_index("attribute")
    return table, findings
