"""Agreement of teacher and judge over a bank."""

from __future__ import annotations

import math

import numpy as np
import torch

from editbench.bank.bank import Bank
from editbench.base.attributes import Attributes
from editbench.stats.agreement import cohen_kappa


def scorer_agreement(bank: Bank) -> dict[str, dict[str, float | None]]:
    """How far teacher and judge give the same classes to a bank's samples.

    Args:
        bank: any.

    Returns:
        Attribute -> 'agreement', the share of equal classes, and 'kappa', Cohen's or
        None where it is undefined. Attributes are those that both score with the same classes.
    """
    n = len(bank)
    teacher = torch.from_numpy(np.asarray(bank.array("teacher").range(0, n)))
    judge = torch.from_numpy(np.asarray(bank.array("judge").range(0, n)))
    found = {}
    for item in bank.judge_attributes:
        if not _both_score(item.name, bank.teacher_attributes, bank.judge_attributes):
            continue
        first = bank.teacher_attributes.labels(teacher, item.name).numpy()
        second = bank.judge_attributes.labels(judge, item.name).numpy()
        kappa = cohen_kappa(first, second)
        found[item.name] = {
            "agreement": round(float((first == second).mean()), 6),
            # JSON has no NaN.
            "kappa": None if math.isnan(kappa) else round(kappa, 6),
        }
    return found


def _both_score(name: str, teacher: Attributes, judge: Attributes) -> bool:
    if name not in teacher.names:
        return False
    return teacher[name].classes == judge[name].classes
