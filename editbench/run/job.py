"""One job: a generator, a method, an attribute, a seed -> a record. Running it again finds the record."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from editbench.bank.bank import Bank
from editbench.bank.starts import Starts, StartsSpec, aim, draw_targets
from editbench.base import identity
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import (
    atomic_folder,
    explain_disk_errors,
    lock,
    sweep_partials,
    write_json,
)
from editbench.base.spaces import Space
from editbench.base.validation import check_kind
from editbench.inversion.walks import Departure, check_walk, depart, draw_inverted, leave_originals
from editbench.networks.generator import Generator
from editbench.networks.registry import require
from editbench.networks.roles import Networks
from editbench.run import record as records
from editbench.run.fits import fit_editor, fitted_editor, scored
from editbench.run.inversions import inversion_id, load_inversion
from editbench.run.loading import load_bank, load_editor, load_networks, load_observations
from editbench.run.measure import compute_metrics, refresh_metrics
from editbench.run.provenance import costs_to_crossing, provenance
from editbench.run.record import Record
from editbench.walk.editor import Editor
from editbench.walk.engine import EngineSpec, walk_starts
from editbench.walk.observation import Scene, WalkObserver, observe_after_walk
from editbench.walk.trajectory import Trajectories


@dataclass(frozen=True)
class Outcome:
    """What became of a job: status, its reason, the record, and whether an earlier record was found."""

    status: str
    reason: str
    run_id: str
    reused: bool


def run_job(cfg: DictConfig) -> Outcome:
    """Run one job, or find its record. Errors of the job become a failed record; Ctrl-C passes."""
    root = Path(str(cfg.out))
    try:
        require(cfg)
        networks = load_networks(cfg)
        names = check_job(cfg, networks)
        bank = load_bank(cfg)
        run_id = make_run_id(cfg, bank.id, names)
    except EditbenchError as error:  # nothing to hang a record on: the job has no identity yet
        return Outcome("failed", str(error), "", False)
    folder = root / run_id
    with explain_disk_errors(root), lock(folder):
        found = Record.open(folder)
        if found is not None and found.final:
            refresh_metrics(found, cfg)
            return Outcome(found.status["status"], found.status["reason"], run_id, True)
        sweep_partials(folder)
        return _run(cfg, folder, networks, bank, names)


def check_job(cfg: DictConfig, networks: Networks) -> list[str]:
    """Raise for what no job can be made of; the attributes that share the draw of starts."""
    target_class(cfg, networks.judge.attributes)
    check_kind("seed", cfg.seed, "int")
    check_kind("out", cfg.out or None, "str")
    return benchmark_attributes(cfg, networks.judge.attributes)


def make_run_id(cfg: DictConfig, bank_id: str, names: list[str]) -> str:
    """Name of the record of a job, see `editbench.base.identity.run_id`."""
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return identity.run_id(config, bank_id, names, inversion_id(cfg))


def target_class(cfg: DictConfig, attributes: Attributes) -> int | None:
    """The class that every start is asked for, or None where each has its own draw."""
    attributes[cfg.attribute]
    return None if cfg.target is None else attributes.class_index(cfg.attribute, cfg.target)


def benchmark_attributes(cfg: DictConfig, attributes: Attributes) -> list[str]:
    """The attributes that share the draw of starts, in the judge's order."""
    chosen = cfg.starts.attributes
    chosen = (
        [chosen]
        if isinstance(chosen, str)
        else list(attributes.names if chosen is None else chosen)
    )
    for name in chosen:
        attributes[name]
    if cfg.attribute not in chosen:
        raise EditbenchError(f"attribute={cfg.attribute} is not among starts.attributes={chosen}")
    return [name for name in attributes.names if name in chosen]


def _run(
    cfg: DictConfig, folder: Path, networks: Networks, bank: Bank, names: list[str]
) -> Outcome:
    about = {
        "run_id": folder.name,
        "method": cfg.method.name,
        "attribute": cfg.attribute,
        "seed": cfg.seed,
        "generator": cfg.generator.name,
        "experiment": cfg.name,
        "leaking": networks.leaking
        or bool(bank.meta.get("leaking")),  # the networks, or an imported bank's logits
        "judged_in": networks.generator.output,
        "classes": list(networks.judge.attributes[cfg.attribute].classes),
    }
    began = time.time()
    with atomic_folder(folder) as partial:
        records.write_config(partial, cfg)
        try:
            with explain_disk_errors(folder):
                kept = _walk_and_measure(cfg, partial, networks, bank, names)
            if kept:
                about["observations"] = kept
            status, reason = "done", ""
        except Unsupported as error:
            status, reason = "skipped", str(error)
        except EditbenchError as error:
            status, reason = "failed", str(error)
        except (
            Exception
        ) as error:  # any defect of a method is a result of that method, not the end of the sweep
            status, reason = "failed", f"{type(error).__name__}: {error} (see {folder / 'log.txt'})"
            (partial / "log.txt").write_text(traceback.format_exc())
        records.write_status(
            partial, status, reason, seconds=round(time.time() - began, 3), **about
        )
    return Outcome(status, reason, folder.name, False)


def _walk_and_measure(
    cfg: DictConfig, folder: Path, networks: Networks, bank: Bank, names: list[str]
) -> list[str]:
    """Do the job in its folder; the names of the observations that left a file there."""
    # The editor and what it may see.
    editor = load_editor(cfg)
    editor.num_ws = networks.generator.num_ws
    editor.check(networks.generator, networks.judge.attributes, cfg.attribute)
    # Before the fit, whose time a wrong option of an observation would waste.
    observations = load_observations(cfg)
    real = load_inversion(cfg)  # None: walks start from the bank's own samples
    if real is not None:
        check_walk(editor, real)
    fitted = fit_editor(editor, cfg, bank, networks, cfg.attribute)
    editor.check(
        networks.generator, networks.judge.attributes, cfg.attribute
    )  # the fit may have found no control

    # Starts and the walk.
    target = target_class(cfg, networks.judge.attributes)
    drawn = (
        draw_targets(starts_spec(cfg), bank, names)
        if real is None
        else draw_inverted(starts_spec(cfg), real, bank, names)
    )
    starts = aim(drawn[cfg.attribute], target)
    if not len(starts):
        raise EditbenchError(
            f"no start was drawn for {cfg.attribute}: raise starts.n={cfg.starts.n}"
        )
    if real is None:
        from_here = Departure(
            editor,
            networks.generator,
            *start_codes(editor, networks.generator, bank, starts, cfg.device),
        )
    else:
        from_here = depart(editor, networks.generator, real, starts, cfg.device)
        leave_originals(folder / "originals.parquet", real, starts)
    for observation in observations.values():
        observation.prepare(networks, cfg.device)
    spec, before = EngineSpec(**cfg.engine), networks.generator.decoded
    codes_file = folder / "codes.parquet" if cfg.save_codes else None
    with scored(networks.teacher) as labelled:
        result = walk_starts(
            from_here.editor,
            from_here.generator,
            networks.judge,
            cfg.attribute,
            starts,
            from_here.codes,
            from_here.logits,
            bank.sigma["judge"],
            spec,
            codes_file,
            WalkObserver(observations),
        )
    if not networks.leaking:  # where the judge is the teacher, its own answers are among these
        fitted = replace(fitted, labels=fitted.labels + sum(labelled))

    # What is left behind.
    attributes = Attributes([a for a in networks.judge.attributes if a.name in names])
    trajectories = Trajectories(
        result.table, attributes, cfg.attribute, select_sigma(bank, attributes)
    )
    trajectories.save(folder / "trajectory.parquet")
    records.write_pictures(folder, result.pictures, trajectories)
    made = (
        provenance(cfg, networks, bank, fitted, starts)
        | {
            "walk_seconds": result.seconds,
            "walk_generator_calls": networks.generator.decoded - before,
        }
        | costs_to_crossing(
            result, fitted, len(starts), networks.generator.decoded - before - result.decoded
        )
    )
    if real is not None:
        made["inversion"] = {
            "id": real.id,
            "folder": str(real.folder),
            "images": real.meta["images"],
            "n": len(real),
            "space": real.space.value,
        }
    # After the costs above were taken: what an observation decodes is no cost of the method.
    scene = Scene(
        editor,
        networks.generator,
        networks.teacher,
        networks.judge,
        bank,
        cfg.attribute,
        target,
        cfg.seed,
        cfg.device,
        spec.batch,
        Path(str(cfg.cache)),
        lambda name: fitted_editor(cfg, bank, networks, name),
    )
    observed = observe_after_walk(folder, observations, scene)
    if observed:
        made["observations"] = observed
    write_json(folder / "provenance.json", made)
    compute_metrics(folder, trajectories, cfg)
    return list(observed)


def starts_spec(cfg: DictConfig) -> StartsSpec:
    return StartsSpec(**{k: v for k, v in cfg.starts.items() if k != "attributes"})


def start_codes(
    editor: Editor, generator: Generator, bank: Bank, starts: Starts, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The starts' own latents (n, d), z for an editor of Z or a generator without W, and their judge logits."""
    field = "z" if editor.space == Space.Z or Space.W not in generator.spaces else "w"
    values = (bank.array(name).take(starts.index) for name in (field, "judge"))
    codes, logits = (torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in values)
    return codes, logits


def select_sigma(bank: Bank, attributes: Attributes) -> np.ndarray:
    columns = bank.judge_attributes.columns()
    return bank.sigma["judge"][[columns.index(name) for name in attributes.columns()]]
