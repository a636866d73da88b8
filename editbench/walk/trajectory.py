"""Trajectories, the input of the metrics: one row for every decoded step of every start.

The columns are:

- start: bank index of the start
- source, target: classes
- step: number of the step; step 0 is the unedited start
- path: Euclidean length walked by the codes, in units of the editor's space. An editor of S has
  units of S here even if it measures its steps in sigmas of a channel
- crossed: whether the start crossed at or before this step
- stopped: true in the row of the first crossing
- finite: false if the walk became NaN or infinite here
- the columns of the job's observations (editbench.walk.observation.DuringWalk)
- 'logit:NAME': one column for each of the judge's logits

Rows are sorted by (start, step).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile

LOGIT = "logit:"  # prefix of a column; the name of one of the judge's logits follows
KEYS = ("start", "source", "target", "step", "path", "crossed", "stopped", "finite")
VERSION = 1


@dataclass(frozen=True)
class Trajectories:
    """All walks of a job.

    Args:
        table: one row per step, with the columns that the module's docstring lists.
        attributes: layout of the logits.
        attribute: the target attribute of the job.
        sigma: (width,) standard deviation of each of the judge's log-odds over the whole bank.
    """

    table: pd.DataFrame
    attributes: Attributes
    attribute: str
    sigma: np.ndarray

    @cached_property
    def logits(self) -> np.ndarray:
        """(rows, width) float64."""
        return self.table[[f"{LOGIT}{c}" for c in self.attributes.columns()]].to_numpy(np.float64)

    @cached_property
    def log_odds(self) -> np.ndarray:
        """(rows, width) float64; see editbench.base.attributes."""
        return self.attributes.log_odds(torch.tensor(self.logits)).numpy()

    @cached_property
    def labels(self) -> np.ndarray:
        """(rows, A) decided classes."""
        return self.attributes.labels(torch.tensor(self.logits)).numpy()

    @cached_property
    def first_row(self) -> np.ndarray:
        """(rows,) position of the step-0 row of the same start."""
        # Rows are sorted by start and step, so the last step 0 above a row is that of its start.
        step = self.table["step"].to_numpy()
        begins = np.flatnonzero(step == 0)
        return begins[np.cumsum(step == 0) - 1]

    @cached_property
    def effect(self) -> np.ndarray:
        """(rows,) achieved effect x, in sigmas: change of the target attribute's log-odds towards
        the target class."""
        return self._change(self.attribute, self.table["target"].to_numpy(np.int64))

    def dependency(self, signed: bool = False) -> np.ndarray:
        """(rows, A - 1) change of every other attribute's log-odds, in sigmas.

        Args:
            signed: whether to keep the sign; otherwise the values are absolute. A signed change is
                positive if the log-odds grow: those of the positive class for a binary attribute,
                those of the class at step 0 for an attribute of several classes.
        """
        changes = []
        for position, name in enumerate(self.attributes.names):
            if name != self.attribute:
                # The other attributes should keep the class that they had at step 0.
                start_class = self.labels[self.first_row, position]
                if self.attributes[name].binary:
                    start_class = np.ones_like(start_class)
                changes.append(self._change(name, start_class))
        stacked = np.stack(changes, 1) if changes else np.zeros((len(self.table), 0))
        return stacked if signed else np.abs(stacked)

    def _change(self, name: str, target: np.ndarray) -> np.ndarray:
        """(rows,) change of an attribute's log-odds towards each row's class `target`, in sigmas."""
        columns, signs = self.attributes.column(name, torch.tensor(target))
        column = np.asarray(columns)
        rows = np.arange(len(self.table))
        # In units of the judge's sigma, so that attributes with large logits do not weigh more.
        change = self.log_odds[rows, column] - self.log_odds[self.first_row, column]
        return np.asarray(signs) * change / self.sigma[column]

    # -- files -------------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Write a parquet file that `load` reads."""
        # The file also holds the layout of the logits, so that reading it needs no network.
        meta = {
            "version": VERSION,
            "attribute": self.attribute,
            "sigma": self.sigma.tolist(),
            "attributes": self.attributes.as_config(),
        }
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        pq.write_table(table.replace_schema_metadata({"editbench": json.dumps(meta)}), path)

    @classmethod
    def load(cls, path: Path) -> Trajectories:
        """Read what `save` wrote.

        Raises:
            BadFile: the file is damaged or has another format.
        """
        try:
            table = pq.read_table(path)
            meta = json.loads((table.schema.metadata or {})[b"editbench"])
            version = meta["version"]
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise BadFile(
                f"{path} is not a readable trajectory file ({error}); run the job again"
            ) from error
        if version != VERSION:
            raise BadFile(
                f"{path} has format {version}, but this version of editbench reads "
                f"{VERSION}: read it with the version that wrote it, or run the job again"
            )
        attributes = Attributes.from_config(meta["attributes"])
        return cls(table.to_pandas(), attributes, meta["attribute"], np.asarray(meta["sigma"]))
