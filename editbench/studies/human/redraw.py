"""Pictures of stored codes: the original and the edit at its first crossing, as the judge saw them.

The networks come from the record's own configuration, the editor's state from the cache of fits.
Every picture that is drawn is shown to the judge again; where its answers are not those of the
record, another picture was drawn and the run is refused. Runs whose codes cannot be redrawn fall
back on the pictures of their strips, which hold the crossing of a few starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import torch
from safetensors.torch import load_file

from editbench.bank.bank import Bank
from editbench.base.errors import BadFile, EditbenchError, Unsupported, reason_of
from editbench.base.images import to_uint8
from editbench.base.spaces import Space
from editbench.networks.roles import Networks
from editbench.report.load import Results
from editbench.run.fits import fit_files
from editbench.run.loading import load_bound_editor, load_networks
from editbench.run.protocol import evaluated_names
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.studies.human.edits import Edits
from editbench.walk.columns import LOGIT
from editbench.walk.editor import Editor, Walk

Pair = tuple[np.ndarray, np.ndarray]  # original and edit, (C, H, W) uint8
# of a logit's sigma, between the record's answer of the judge and its answer to the redrawn picture
TOLERANCE = 0.05
# Pictures of a batch lie in memory together.
BATCH = 64
# A few pictures show that a run cannot be redrawn before starts are drawn on its account.
PROBED = 4


class Redraw:
    """Draws the edits of one run from codes.parquet.

    Raises EditbenchError, with the reason, where that is not possible.
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
        # The record's own configuration, but for where it is computed and where its fits lie.
        config = {**edits.config, "device": device}
        if cache:
            config["cache"] = str(cache)
        self.settings = Settings.from_config(config)
        networks: Networks = load_networks(self.settings)
        # The editor was fitted on the evaluated attributes alone.
        self.networks = networks.select(evaluated_names(self.settings, networks.judge.attributes))
        if self.networks.generator.output != "image":
            raise Unsupported("the generator produces no images")
        self.bank_id = str((provenance.get("hashes") or {}).get("bank", ""))
        self.bank: Bank | None = None
        self.editor = self._editor()
        # The error is raised here, where the caller can still fall back on the strips.
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
                editor.load_state(load_file(path))
        return editor

    @torch.no_grad()
    def __call__(self, starts: Sequence[int]) -> dict[int, Pair]:
        """start -> (original, edit), for starts that crossed."""
        found: dict[int, Pair] = {}
        for first in range(0, len(starts), BATCH):
            part = list(starts[first : first + BATCH])
            steps = self.edits.walks.loc[part, "step"].astype(int).tolist()
            # An edit may depend on where its walk began, so the origin is read with it.
            origin = self._codes(part, [0] * len(part))
            codes = self._codes(part, steps)
            walk = self._walk(part, origin)
            # The origin first, while the walk still holds its codes.
            pictures = [self._decode(walk, part, [0] * len(part))]
            walk.codes = codes
            pictures.append(self._decode(walk, part, steps))
            found |= {start: (a, b) for start, a, b in zip(part, *pictures)}
        return found

    def _codes(self, starts: list[int], steps: list[int]) -> torch.Tensor:
        """Stored codes in the shape of the editor's space."""
        try:
            source = pads.dataset(self.path)
            # The file holds every step of every walk; the filter reads only what is shown.
            chosen = pads.field("start").isin(starts) & pads.field("step").isin(sorted(set(steps)))
            table = source.to_table(filter=chosen)
            keys = list(zip(table["start"].to_pylist(), table["step"].to_pylist()))
            values = table["codes"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
            # The file's order is not the order asked for.
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
        """The samples' own latents: the origin itself says them, but for an editor of the weights
        the bank must.
        """
        space = self.editor.space
        if space == Space.THETA:
            if self.bank is None:
                self.bank = self._open_bank()
            field = self.networks.generator.latent_space.value
            return torch.from_numpy(
                np.ascontiguousarray(self.bank.array(field).take(np.array(starts)))
            ).to(origin)
        # Styles do not tell the w that they came from.
        if space == Space.S:
            return None
        # The last row is the w itself, also where a cutoff truncates the first ones.
        return origin[:, -1] if space == Space.W_PLUS else origin

    def _open_bank(self) -> Bank:
        folder = self.settings.bank.path or self.settings.cache / "banks" / self.bank_id
        if not (folder / "bank.json").is_file():
            raise Unsupported(
                "an edit of the weights needs the samples' latents, and their bank is not in "
                f"{folder}"
            )
        bank = Bank(folder)
        # Start ids are rows of one bank; in another bank they are other faces.
        if bank.id != self.bank_id:
            raise Unsupported(f"{folder} holds the bank {bank.id}, the record's is {self.bank_id}")
        return bank

    def _decode(self, walk: Walk, starts: list[int], steps: list[int]) -> list[np.ndarray]:
        decoded = self.networks.generator.decode(self.editor.codes(walk))
        # Every picture, as a fit or a network may differ in a way that a few do not show.
        self._check(self.networks.judge(decoded).float().cpu().numpy(), starts, steps)
        return [to_uint8(image).numpy() for image in decoded]

    def _check(self, logits: np.ndarray, starts: list[int], steps: list[int]) -> None:
        """The judge must see in a picture what the record says that it saw."""
        trajectories = self.edits.trajectories
        columns = trajectories.attributes.columns()
        known = self.networks.judge.attributes.columns()
        rows = trajectories.table.set_index(["start", "step"]).loc[list(zip(starts, steps))]
        recorded = rows[[f"{LOGIT}{name}" for name in columns]].to_numpy(np.float64)
        # In sigmas of the bank, so that one tolerance fits all logits.
        gap = (
            np.abs(logits[:, [known.index(name) for name in columns]] - recorded)
            / trajectories.sigma
        )
        # Asked this way round, a NaN is a failure too.
        if not bool((gap < TOLERANCE).all()):
            raise BadFile(
                f"{self.path}: the redrawn images differ from those that were judged (logits differ by "
                f"{gap.max():.2g} sigma): the fit of the record is not in the cache, or weights or "
                "code have changed"
            )


class Strips:
    """The pictures of strips.safetensors: few starts, but their crossing is always among the
    frames.
    """

    def __init__(self, edits: Edits, arrays: dict[str, np.ndarray] | None) -> None:
        self.found: dict[int, Pair] = {}
        for k, start in enumerate(arrays["starts"].tolist() if arrays else []):
            assert arrays is not None
            steps = arrays["steps"][k].tolist()
            # A strip keeps some frames of a walk; without source and crossing it is of no use here.
            step = edits.walks["step"].get(start)
            if start in edits.crossed and 0 in steps and step in steps:
                self.found[start] = arrays["images"][k][0], arrays["images"][k][steps.index(step)]

    def __call__(self, starts: Sequence[int]) -> dict[int, Pair]:
        return {start: self.found[start] for start in starts}


def open_pictures(
    results: Results, edits: Edits, device: str = "cpu", cache: Path | None = None
) -> tuple[Edits, Redraw | Strips]:
    """How the pictures of a run can be had, and the edits with the starts that have some.

    Args:
        results: of the runs folder.
        edits: of one run.
        device: on which pictures are redrawn.
        cache: of fits and banks; None for that of the record.

    Returns:
        The edits with their usable starts, and a function of starts that gives their pictures: of
        all crossings if the walk can be redrawn, otherwise of those that the strips hold.
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
    # A record may be of networks that are not here any more: any reason is a reason.
    except Exception as error:
        reason = reason_of(error)
    try:
        strips = Strips(edits, results.strips(edits.run_id))
    except EditbenchError as error:
        # Damaged strips leave the run without pictures; the others can still be compared.
        strips = Strips(edits, None)
        reason = f"{reason}; {error}"
    if strips.found:
        return edits.with_pictures(
            frozenset(strips.found), f"from the strips, because: {reason}"
        ), strips
    return edits.with_pictures(frozenset(), f"none, because: {reason}"), strips
