"""What a record says of itself beside its numbers: versions, hashes, and what the method cost."""

from __future__ import annotations

from omegaconf import DictConfig

from editbench.bank.bank import Bank
from editbench.bank.starts import Starts
from editbench.base.sources import source_digest
from editbench.networks.roles import Networks
from editbench.run import record as records
from editbench.run.fits import Fitted
from editbench.walk.engine import WalkResult


def provenance(
    cfg: DictConfig, networks: Networks, bank: Bank, fitted: Fitted, starts: Starts
) -> dict:
    """Everything a reader needs to trust or repeat a number."""
    return records.environment() | {
        "hashes": {
            "generator": networks.generator.digest,
            "teacher": networks.teacher.digest,
            "judge": networks.judge.digest,
            "bank": bank.id,
            "method_source": source_digest(cfg.method["_target_"]),
        },
        "bank_n": len(bank),
        "starts": len(starts),
        "pool_threshold": starts.threshold,
        "fit_seconds": fitted.seconds,
        "fit_cached": fitted.cached,
        "fit_generator_calls": fitted.decoded,
        "labels_used": fitted.labels,
        "method_notes": fitted.notes,
        "peak_memory_mb": records.peak_memory_mb(cfg.device),
        "device": cfg.device,
    }


def costs_to_crossing(result: WalkResult, fitted: Fitted, starts: int, in_steps: int) -> dict:
    """What the edits cost up to their crossing, or to the cap where there was none; the sweep beyond is not charged.

    edits_per_second: starts over the share of the walk's time that their needed decodes had; generator_calls: those
    decodes, all that the editor's steps made, and the fit's.
    """
    table = result.table
    needed = int(((table["step"] > 0) & (~table["crossed"] | table["stopped"])).sum())
    share = needed / max(int((table["step"] > 0).sum()), 1)
    return {
        "edits_per_second": starts / max(result.seconds * share, 1e-9),
        "generator_calls": needed + in_steps + fitted.decoded,
    }
