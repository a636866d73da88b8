"""Records as a sweep leaves them, with numbers chosen by the test."""

from __future__ import annotations

import json
from collections.abc import Collection
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console
from safetensors.torch import save_file

from editbench.base.files import seal_folder
from editbench.report import print_table, report
from editbench.report.files import ReportFiles
from editbench.report.load import ROW_TYPES, SAMPLE_TYPES, Results
from editbench.report.style import Style

BETTER = {
    "accuracy": True,
    "success_rate": True,
    "off_target_flips": False,
    "path_length": None,
    "ad": False,
    "ad_at": False,
    "ad_signed": None,
    "wrong_direction": False,
}


def metric_rows(
    accuracy: float = 0.5, ad: float = 0.4, n: int = 200, note: str = "", **more: float
) -> pd.DataFrame:
    """Scalars around `accuracy` and an AD curve that rises to `ad` at 1 sigma; the last bin is too thin to show."""
    half = 1.96 * np.sqrt(max(accuracy * (1 - accuracy), 0.01) / n)
    scalars = {
        "accuracy": accuracy,
        "success_rate": min(1.0, accuracy + 0.2),
        "off_target_flips": 1.3 * ad,
        "path_length": 5.25,
        "wrong_direction": 0.0,
        **more,
    }
    rows = [
        {
            "metric": name,
            "x": np.nan,
            "value": value,
            "low": value - half,
            "high": value + half,
            "count": n,
            "note": "",
        }
        for name, value in scalars.items()
    ]
    rows.append(
        {
            "metric": "ad_at",
            "x": 1.0,
            "value": ad,
            "low": ad - 0.03,
            "high": ad + 0.03,
            "count": n,
            "note": note,
        }
    )
    for k in range(12):
        x = 0.125 + 0.25 * k
        value, few = ad * x**0.8, k == 11
        rows.append(
            {
                "metric": "ad",
                "x": x,
                "value": value,
                "low": value * 0.92,
                "high": value * 1.08,
                "count": 12 if few else 400,
                "note": note or ("hidden: 12 points are fewer than 30" if few else ""),
            }
        )
    frame = complete(pd.DataFrame(rows).assign(version=1), ROW_TYPES)
    return frame.assign(higher_is_better=frame["metric"].map(BETTER).astype(object))


def start_samples(**values: np.ndarray) -> pd.DataFrame:
    """Values of single starts 0, 1, 2, ..., a metric each; NaN: the start has no value."""
    parts = [
        pd.DataFrame({"metric": name, "start": np.arange(len(one)), "value": one}).dropna()
        for name, one in values.items()
    ]
    return pd.concat(parts, ignore_index=True)


def complete(table: pd.DataFrame, types: dict) -> pd.DataFrame:
    """The table with the columns that a test left out, and without a value in them."""
    for name, kind in types.items():
        if name not in table:
            table = table.assign(**{name: "" if kind == "str" else np.nan})
        elif kind == "str":
            table = table.assign(**{name: table[name].fillna("")})
    return table


def fake_run(
    root: Path,
    method: str,
    attribute: str,
    rows: pd.DataFrame | None = None,
    *,
    status: str = "done",
    reason: str = "",
    seed: int = 0,
    judged_in: str = "image",
    leaking: bool = False,
    generator: str = "faces32",
    pictures: torch.Tensor | None = None,
    samples: pd.DataFrame | None = None,
    method_config: dict | None = None,
    starts_n: int = 1400,
    fit_seconds: float = 1.5,
    tag: str = "",
    metrics: dict | None = None,
    floor: bool | None = None,
    made: dict | None = None,
    engine: dict | None = None,
    no_control: bool = False,
) -> Path:
    """Write one record.

    pictures: (k, c, C, H, W) uint8; they cross at the last column but one. made: joins the provenance.
    """
    folder = root / f"{method}-{attribute}-s{seed}-{tag or 'abcdef0123'}"
    folder.mkdir(parents=True)
    config = {
        "generator": {"name": generator, "_target_": "somewhere.load"},
        "scorer": {"name": "faces"},
        "bank": {"name": "standard", "n": 50000},
        "starts": {"n": starts_n, "near": "joint"},
        "engine": {"max_steps": 50, **(engine or {})},
        "method": {"name": method, **(method_config or {})},
        "attribute": attribute,
        "seed": seed,
        "name": "demo",
        "metric": metrics or {},
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    if status == "done":
        provenance = {
            "fit_seconds": fit_seconds,
            "fit_cached": False,
            "edits_per_second": 41.5,
            "walk_seconds": 4.8,
            "generator_calls": 12345,
            "labels_used": 60,
            "peak_memory_mb": 900.0,
            "starts": 200,
            "bank_n": 50000,
            "pool_threshold": 0.31,
            "hashes": {"generator": "11aa22bb33cc", "bank": "bank-0d1e2f"},
            "packages": {"torch": "2.9.0", "numpy": "2.3.1"},
            "python": "3.11.9",
            "processor": "a processor",
            "method_notes": {"k": 50},
            "device": "cpu",
        }
        (folder / "provenance.json").write_text(json.dumps(provenance | (made or {})))
        rows = metric_rows() if rows is None else complete(rows, ROW_TYPES)
        rows.to_parquet(folder / "rows.parquet")
        accuracy = float(rows.loc[rows["metric"] == "accuracy", "value"].iloc[0])
        if samples is None:
            value = (np.arange(200) < round(200 * accuracy)).astype(float)
            samples = pd.DataFrame({"metric": "accuracy", "start": np.arange(200), "value": value})
        samples = complete(samples, SAMPLE_TYPES)
        samples.to_parquet(folder / "samples.parquet")
        if pictures is not None:
            save_strips(folder, pictures)
    elif made is not None:
        (folder / "provenance.json").write_text(json.dumps(made))
    about = {
        "method": method,
        "attribute": attribute,
        "generator": generator,
        "seed": seed,
        "judged_in": judged_in,
        "leaking": leaking,
        "run_id": folder.name,
        "experiment": "demo",
        "seconds": 9.5,
    }
    if floor is not None:
        about["floor"] = floor
    if no_control:
        about["no_control"] = True
    (folder / "status.json").write_text(json.dumps({"status": status, "reason": reason, **about}))
    seal_folder(folder)
    return folder


def save_strips(folder: Path, pictures: torch.Tensor) -> None:
    k, c = pictures.shape[:2]
    crossed = (torch.arange(c) >= c - 2).expand(k, c).clone()
    save_file(
        {
            "images": pictures.contiguous(),
            "steps": torch.arange(c).expand(k, c).clone(),
            "crossed": crossed,
            "starts": torch.arange(k) + 40,
            "effect": (torch.arange(c) * 0.3).expand(k, c).clone(),
        },
        folder / "strips.safetensors",
    )


def report_of(
    root: Path,
    out: Path | None = None,
    draws: Collection[str] = (),
    by_seed: bool = False,
    style: Style | None = None,
) -> Path:
    """`report` with the figures of these names alone: drawing takes most of a report's time."""
    draw = ReportFiles._draw_one

    def draw_some(written: ReportFiles, path: Path, *others: object) -> str:
        return draw(written, path, *others) if path.name in draws else ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportFiles, "_draw_one", draw_some)
        return report(root, out, by_seed=by_seed, files=bool(draws), style=style)


def printed_table(results: Results, width: int = 400, **options: object) -> str:
    """What `print_table` writes on a terminal of so many columns."""
    written = StringIO()
    print_table(results, Console(width=width, file=written), **options)  # type: ignore[arg-type]
    return written.getvalue()
