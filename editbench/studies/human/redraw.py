"""Redrawing pictures from stored codes: the original, and the edit at its first crossing.

The networks are built from the configuration of the record, and the state of the editor is loaded
from the cache of fits. The judge scores every redrawn picture again. If its logits differ from
those of the record, the picture is not the one that was judged, and the run is rejected. A run that
cannot be redrawn falls back on the pictures of its strips, which have the crossings of a few
starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import torch
from safetensors.torch import load

from editbench.bank.bank import Bank
from editbench.base.errors import BadFile, EditbenchError, Unsupported, reason_of
from editbench.base.files import read_checked
from editbench.base.images import to_host_bytes
from editbench.base.spaces import Space
from editbench.networks.roles import Networks
from editbench.report.load import Results
from editbench.run.batch import redraw_batch
from editbench.run.fits import fit_files
from editbench.run.loading import load_bound_editor, load_networks
from editbench.run.protocol import evaluated_names
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.studies.human.edits import Edits
from editbench.walk.editor import Editor, Walk
from editbench.walk.trajectory import LOGIT

Pair = tuple[np.ndarray, np.ndarray]  # original and edit, (C, H, W) uint8
TOLERANCE = 0.05  # largest difference of a logit from that of the record, in sigmas
PROBED = 4  # pictures that are redrawn at first, to see whether a run can be redrawn


class Redraw:
    """Redraws the pictures of one run from codes.parquet.

    Args:
        edits: of the run.
        folder: of the record.
        provenance: of the record.
        device: of the networks.
        cache: folder of fits and banks; None for that of the record.

    Raises:
        EditbenchError: the pictures cannot be redrawn.
    """

    def __init__(
        self,
        edits: Edits,
        folder: Path,
        provenance: dict,
        device: str = "cpu",
        cache: Path | None = None,
    ) -> None:
        self.edits = edits
        record = Record.read(folder)
        if not record.has(Record.CODES):
            raise Unsupported("no codes are stored (save_codes was false)")
        self.path = record.path(Record.CODES)
        # The configuration of the record, with another device and perhaps another cache.
        config = {**edits.config, "device": device}
        if cache:
            config["cache"] = str(cache)
        self.settings = Settings.from_config(config)
        networks: Networks = load_networks(self.settings)
        # The editor was fitted with the evaluated attributes only.
        self.networks = networks.select(evaluated_names(self.settings, networks.judge.attributes))
        if self.networks.generator.output != "image":
            raise Unsupported("the generator produces no images")
        self.bank_id = str((provenance.get("hashes") or {}).get("bank", ""))
        self.bank: Bank | None = None
        self.editor = self._editor()
        self.batch = redraw_batch(self.settings, self.networks)
        # Redrawn now, while the caller can still fall back on the strips.
        probe = sorted(edits.crossed)[:PROBED]
        if probe:
            self(probe)

    def _editor(self) -> Editor:
        editor = load_bound_editor(self.settings, self.networks)
        editor.check(self.networks.generator, self.networks.judge.attributes, self.edits.attribute)
        for path in fit_files(
            self.settings, self.bank_id, self.networks, self.edits.attribute, type(editor)
        ):
            if path.is_file():  # without it, the check of the pictures tells whether it was needed
                editor.load_state(load(read_checked(path)))
        return editor

    @torch.no_grad()
    def __call__(self, starts: Sequence[int]) -> dict[int, Pair]:
        """start -> (original, edit), for starts that crossed."""
        found: dict[int, Pair] = {}
        for first in range(0, len(starts), self.batch):
            part = list(starts[first : first + self.batch])
            steps = self.edits.walks.loc[part, "step"].astype(int).tolist()
            # An edit may depend on the start of its walk, so the code at step 0 is read too.
            origin = self._codes(part, [0] * len(part))
            codes = self._codes(part, steps)
            walk = self._walk(part, origin)
            # The original is decoded first, while the walk still has its codes.
            pictures = [self._decode(walk, part, [0] * len(part))]
            walk.codes = codes
            pictures.append(self._decode(walk, part, steps))
            found |= {start: (a, b) for start, a, b in zip(part, *pictures)}
        return found

    def _codes(self, starts: list[int], steps: list[int]) -> torch.Tensor:
        """Stored codes in the shape of the editor's space."""
        try:
            source = pads.dataset(self.path)
            # Only the steps that are needed are read.
            chosen = pads.field("start").isin(starts) & pads.field("step").isin(sorted(set(steps)))
            table = source.to_table(filter=chosen)
            keys = list(zip(table["start"].to_pylist(), table["step"].to_pylist()))
            values = table["codes"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
            # The rows of the file are in another order than the requested one.
            places = {key: row for row, key in enumerate(keys)}
            rows = [places[key] for key in zip(starts, steps)]
        except (OSError, KeyError, ValueError) as error:
            raise BadFile(
                f"{self.path} does not hold the codes of every crossing ({error!r})"
            ) from error
        codes = torch.from_numpy(values[rows]).to(self.settings.device)
        generator = self.networks.generator
        if self.editor.space == Space.W_PLUS:
            return codes.reshape(-1, generator.num_ws, generator.w_dim)
        return codes

    def _walk(self, starts: list[int], origin: torch.Tensor) -> Walk:
        device = self.settings.device
        walks = self.edits.walks.loc[starts]
        source, target = (
            torch.tensor(walks[name].to_numpy(np.int64), device=device)
            for name in ("source", "target")
        )
        return Walk(
            self.edits.attribute,
            torch.tensor(starts, device=device),
            origin,
            origin,
            source,
            target,
            latent=self._latent(starts, origin),
        )

    def _latent(self, starts: list[int], origin: torch.Tensor) -> torch.Tensor | None:
        """The latents of the samples, from their codes or, for an editor of weights, from the bank.

        None for an editor of S, since styles do not determine w.
        """
        space = self.editor.space
        if space == Space.THETA:
            if self.bank is None:
                self.bank = self._open_bank()
            field = self.networks.generator.latent_space.value
            return torch.from_numpy(
                np.ascontiguousarray(self.bank.array(field).take(np.array(starts)))
            ).to(origin)
        if space == Space.S:
            return None
        # The last row is w itself, even if a truncation changes the first rows.
        return origin[:, -1] if space == Space.W_PLUS else origin

    def _open_bank(self) -> Bank:
        folder = self.settings.bank.path or self.settings.cache / "banks" / self.bank_id
        if not (folder / "bank.json").is_file():
            raise Unsupported(
                "an edit of the weights needs the samples' latents, and their bank is not in "
                f"{folder}"
            )
        bank = Bank(folder)
        # Ids of starts are rows of this bank and mean other samples in any other bank.
        if bank.id != self.bank_id:
            raise Unsupported(f"{folder} holds the bank {bank.id}, the record's is {self.bank_id}")
        return bank

    def _decode(self, walk: Walk, starts: list[int], steps: list[int]) -> list[np.ndarray]:
        decoded = self.networks.generator.decode(self.editor.codes(walk))
        # All pictures are checked, since differences may affect only some of them.
        self._check(self.networks.judge(decoded).float().cpu().numpy(), starts, steps)
        return [to_host_bytes(image).numpy() for image in decoded]

    def _check(self, logits: np.ndarray, starts: list[int], steps: list[int]) -> None:
        """Check that the judge's logits of redrawn pictures are those of the record."""
        trajectories = self.edits.trajectories
        columns = trajectories.attributes.columns()
        known = self.networks.judge.attributes.columns()
        rows = trajectories.table.set_index(["start", "step"]).loc[list(zip(starts, steps))]
        recorded = rows[[f"{LOGIT}{name}" for name in columns]].to_numpy(np.float64)
        # In sigmas of the bank, so that one tolerance applies to all logits.
        gap = (
            np.abs(logits[:, [known.index(name) for name in columns]] - recorded)
            / trajectories.sigma
        )
        # Written such that NaN is a failure too.
        if not bool((gap < TOLERANCE).all()):
            raise BadFile(
                f"{self.path}: the redrawn images differ from those that were judged (logits differ by "
                f"{gap.max():.2g} sigma): the fit of the record is not in the cache, or weights or "
                "code have changed"
            )


class Strips:
    """The pictures of strips.safetensors: of few starts, but always with their crossings.

    Args:
        edits: of the run.
        arrays: of the strips; None if there are none.
    """

    def __init__(self, edits: Edits, arrays: dict[str, np.ndarray] | None) -> None:
        self.found: dict[int, Pair] = {}
        if arrays is None:
            return
        for k, start in enumerate(arrays["starts"].tolist()):
            steps = arrays["steps"][k].tolist()
            # Both the source and the crossing are needed.
            step = edits.walks["step"].get(start)
            if start in edits.crossed and 0 in steps and step in steps:
                self.found[start] = arrays["images"][k][0], arrays["images"][k][steps.index(step)]

    def __call__(self, starts: Sequence[int]) -> dict[int, Pair]:
        return {start: self.found[start] for start in starts}


def open_pictures(
    results: Results, edits: Edits, device: str = "cpu", cache: Path | None = None
) -> tuple[Edits, Redraw | Strips]:
    """Find a source of a run's pictures, and the starts that have pictures.

    Args:
        results: of the runs folder.
        edits: of one run.
        device: that redraws the pictures.
        cache: of fits and banks; None for that of the record.

    Returns:
        The edits with their usable starts, and a function of starts that returns their pictures. If
        the run can be redrawn, all starts that crossed are usable, otherwise those of the strips.
    """
    try:
        redraw = Redraw(
            edits,
            results.root / edits.run_id,
            results.provenance.get(edits.run_id, {}),
            device,
            cache,
        )
        return edits.with_pictures(edits.crossed, "redrawn from the stored codes"), redraw
    # Whatever the error, such as missing networks, the strips may have pictures.
    except Exception as error:
        reason = reason_of(error)
    try:
        strips = Strips(edits, results.strips(edits.run_id))
    except EditbenchError as error:
        # With damaged strips this run has no pictures, but other runs can still be compared.
        strips = Strips(edits, None)
        reason = f"{reason}; {error}"
    source = "from the strips" if strips.found else "none"
    return edits.with_pictures(frozenset(strips.found), f"{source}, because: {reason}"), strips
