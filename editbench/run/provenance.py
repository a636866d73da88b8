"""The provenance of a record: versions, hashes, and the costs of the method."""

from __future__ import annotations

from typing import Any

from editbench.bank.agreement import scorer_agreement
from editbench.bank.bank import Bank
from editbench.bank.spec import far_starts
from editbench.bank.starts import Starts
from editbench.base.sources import source_digest
from editbench.networks.roles import Networks
from editbench.run.environment import environment, peak_memory_mb
from editbench.run.fits import Fitted
from editbench.run.settings import Settings
from editbench.walk.engine import WalkResult
from editbench.worlds.criteria import card_verdict

SHORTEST = 1e-9  # seconds; a tiny walk may take less time than the clock resolves


def content_hashes(networks: Networks, bank_id: str, method: str) -> dict[str, str]:
    """Hashes of what a job uses; equal hashes mean equal content, wherever the files lie.

    Args:
        networks: generator, teacher and judge.
        bank_id: identity of the bank.
        method: dotted name of the class of the method.

    Returns:
        Role -> hash.
    """
    return {
        "generator": networks.generator.digest,
        "teacher": networks.teacher.digest,
        "judge": networks.judge.digest,
        "bank": bank_id,
        "method_source": source_digest(method),
    }


def provenance(
    settings: Settings,
    networks: Networks,
    bank: Bank,
    fitted: Fitted,
    starts: Starts,
    result: WalkResult,
    walk_calls: int,
) -> dict[str, Any]:
    """Everything a reader needs to trust or repeat a number.

    Args:
        settings: of the job.
        networks: generator, teacher and judge.
        bank: that the starts were drawn from.
        fitted: what the fit cost.
        starts: of the walks.
        result: of the walks.
        walk_calls: samples that the generator decoded during the walks, including those that the
            editor decoded itself.
    """
    distances = starts.distances()
    card = settings.plain["generator"].get("card")
    # The engine counts what it decodes itself; the rest was decoded inside the editor's steps.
    in_steps = walk_calls - result.decoded
    return environment(settings.device) | {
        "hashes": content_hashes(networks, bank.id, settings.method.target),
        "bank_n": len(bank),
        "starts": len(starts),
        "pool_threshold": starts.threshold,
        "evaluated": list(networks.judge.attributes.names),
        # Medians over the starts, in sigma: from the target's boundary, from the nearest other one.
        "start_distance": distances,
        "start_warning": far_starts(distances, settings.starts.near),
        "starts_refused": starts.refused,
        # Not meaningful if one network has both roles.
        "agreement": {} if networks.leaking else scorer_agreement(bank),
        **about_fit(fitted, settings.attribute),
        "peak_memory_mb": peak_memory_mb(settings.device),
        "device": settings.device,
        # The verdict of the world's card: the quality of the world, independent of the editors.
        "world_card": card_verdict(networks.generator.digest, networks.judge.digest, card),
        "resolution": getattr(networks.generator, "resolution", None),
        "walk_seconds": result.seconds,
        "walk_generator_calls": walk_calls,
        "walks_not_finite": _not_finite_walks(result),
        **_costs_to_crossing(result, fitted, len(starts), in_steps),
    }


def about_fit(fitted: Fitted, attribute: str) -> dict[str, Any]:
    """What is known of a fit; all that is known of a job which its fit shows to be unsupported.

    Args:
        fitted: costs, notes and AUC.
        attribute: whose AUC is kept.
    """
    return {
        "fit_seconds": fitted.seconds,
        "fit_cached": fitted.cached,
        "fit_generator_calls": fitted.decoded,
        "labels_used": fitted.labels,
        "method_notes": fitted.notes,
        # AUC of what the method learned for the teacher's labels; null if it gives no scores.
        "learned": fitted.learned.get(attribute),
    }


def _not_finite_walks(result: WalkResult) -> int:
    """How many walks ended at codes or logits that are NaN or infinite."""
    table = result.table
    return int(table.loc[~table["finite"], "start"].nunique())


def _costs_to_crossing(
    result: WalkResult, fitted: Fitted, starts: int, in_steps: int
) -> dict[str, float]:
    """Costs of the edits up to their crossing, or up to the step limit without a crossing.

    For the curves of dependency a walk continues past its crossing. An actual edit would stop, so
    this part is not charged.

    Args:
        result: of the walk.
        fitted: what the fit cost.
        starts: number of starts.
        in_steps: samples that the editor decoded in its own steps.

    Returns:
        edits_per_second: starts divided by the time of the needed part of the walk.
        generator_calls: decoded samples: those needed in the walk, the editor's own, and the fit's.
    """
    table = result.table
    is_edit = table["step"] > 0
    is_needed = ~table["crossed"] | table["stopped"]
    # A step counts until the start has crossed; the step that crosses counts as well.
    needed = int((is_edit & is_needed).sum())
    # All decodes of a walk take about the same time, so their share is the share of time.
    share = needed / max(int(is_edit.sum()), 1)
    # What an editor decodes in its steps is known only for the whole walk, so all is charged.
    return {
        "edits_per_second": starts / max(result.seconds * share, SHORTEST),
        "generator_calls": needed + in_steps + fitted.decoded,
    }
