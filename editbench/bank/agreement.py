"""Agreement between teacher and judge over a bank, and between an imported bank and a run's
scorers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from editbench.bank.bank import IMPORTED, Bank
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile
from editbench.base.files import (
    OF_CACHE,
    digest,
    explain_disk_errors,
    find_or_make,
    read_json,
    write_json,
)
from editbench.base.identity import modules_digest
from editbench.base.spaces import Codes, Space
from editbench.networks.roles import ROLES, Networks
from editbench.stats.agreement import cohen_kappa

RESCORED = 256  # samples of an imported bank that are scored again


def scorer_agreement(bank: Bank) -> dict[str, dict[str, float | None]]:
    """How often teacher and judge assign the same classes to a bank's samples.

    Args:
        bank: any bank.

    Returns:
        Attribute -> 'agreement', the share of samples with equal classes, and 'kappa', Cohen's
        kappa or None if it is undefined. Only attributes that both score with the same classes.
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


def imported_agreement(
    bank: Bank, networks: Networks, key: str, device: str, batch: int, cache: Path
) -> dict[str, dict[str, float]]:
    """How well the logits of an imported bank agree with a run's scorers.

    An imported bank does not record which scorers its logits come from. Its first samples are
    therefore scored again, once for all jobs that share a cache.

    Args:
        bank: any, with the attributes of the scorers.
        networks: of the run.
        key: identifies the bank and the networks, see `editbench.run.loading.bank_key`.
        device: of the networks.
        batch: samples decoded together.
        cache: folder that jobs share.

    Returns:
        Role -> attribute -> share of samples with equal classes; empty if the bank was not
        imported.
    """
    imported = [role for role in ROLES if bank.meta[role] == IMPORTED]
    if not imported:
        return {}
    about = [key, bank.judge_attributes.names, modules_digest([__name__])]
    path = cache / "agreement" / f"{digest(about)}.json"

    def make() -> dict[str, dict[str, float]]:
        found = _score_again(bank, networks, imported, device, batch)
        with explain_disk_errors(path, OF_CACHE):
            write_json(path, found)
        return found

    return find_or_make(path, lambda: _read_agreement(path), make)


def _read_agreement(path: Path) -> dict[str, dict[str, float]] | None:
    """The content of a cached file; None if it is absent or damaged."""
    try:
        return read_json(path, sealed=True)
    except BadFile:
        return None


@torch.inference_mode()
def _score_again(
    bank: Bank, networks: Networks, imported: Sequence[str], device: str, batch: int
) -> dict[str, dict[str, float]]:
    """Role -> attribute -> share of the first samples to which the run's scorer assigns the class
    that the bank holds.

    Args:
        bank: with the attributes of the scorers.
        networks: of the run.
        imported: roles whose logits are compared.
        device: of the networks.
        batch: samples decoded together.
    """
    equal = {role: torch.zeros(len(bank.judge_attributes)) for role in imported}
    rows = min(len(bank), RESCORED)
    for first in range(0, rows, batch):
        last = min(first + batch, rows)
        w = torch.from_numpy(np.array(bank.array("w").range(first, last)))
        decoded = networks.generator.decode(Codes(Space.W, w.to(device)))
        for role in imported:
            scorer = networks.scorers[role]
            said = torch.from_numpy(np.array(bank.array(role).range(first, last)))
            known = scorer.attributes
            equal[role] += (known.labels(said) == known.labels(scorer(decoded).cpu())).sum(0)
    found = {}
    for role in imported:
        shares = (equal[role] / rows).tolist()
        found[role] = dict(zip(bank.judge_attributes.names, shares))
    return found


def _both_score(name: str, teacher: Attributes, judge: Attributes) -> bool:
    if name not in teacher.names:
        return False
    return teacher[name].classes == judge[name].classes
