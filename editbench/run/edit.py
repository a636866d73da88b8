"""Edits of any codes with the method of a finished run, fitted as in this run."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from editbench.bank.starts import Starts
from editbench.base.batches import Batches
from editbench.base.errors import EditbenchError, SpaceMismatch, Unsupported, WrongType
from editbench.base.precision import use_precision
from editbench.base.progress import print_message
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_at_least
from editbench.inversion.walks import adapt_to_codes
from editbench.run.batch import engine_batch
from editbench.run.fits import fitted_editor
from editbench.run.job import Identified, identify
from editbench.run.loading import load_bank, load_networks, locate_bank
from editbench.run.provenance import content_hashes
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.engine import begin_walk
from editbench.walk.strength import sides
from editbench.walk.walker import StridedWalker, codes_to_decode

# Hash in the provenance of a run -> what messages call its content.
PARTS = {
    "generator": "the generator",
    "teacher": "the teacher",
    "judge": "the judge",
    "bank": "the bank or its code",
    "method_source": "the code of the method",
}
START_SPACES = (Space.Z, Space.W, Space.W_PLUS)  # of codes from which an edit can start


class FittedRun:
    """The networks and the fitted method of a finished run."""

    def __init__(self, record: Record, settings: Settings) -> None:
        """Load the networks, the bank and the fit.

        Bank and fit are read from the cache of the run, and made again if they are not there.

        Args:
            record: of the run; it must have walks.
            settings: of the run, possibly on another device.

        Raises:
            EditbenchError: the method, the networks or the bank are not those of the run any more.
        """
        job = identify(settings)
        if job.run_id != record.status.get("run_id"):
            raise EditbenchError(
                f"{record.folder} was made by other code, networks or files than there are now"
                f"{_changed_parts(record, settings, job)}, so its edits cannot be repeated: run the "
                "job again"
            )
        self.settings = settings
        self.networks = load_networks(settings).select(job.evaluated)
        _announce_missing(settings, record)
        bank = load_bank(settings).select(job.evaluated)
        self.editor = fitted_editor(settings, bank, self.networks, settings.attribute)
        stride = record.provenance().get("stride")
        # Number of the method's own steps in a step of the run.
        self.stride = stride["steps"] if stride and stride["reached"] else 1.0

    @torch.no_grad()
    def edit(self, codes: Codes, steps: float, target: str | int | None) -> Codes:
        """Walk every sample for the same number of steps, see `editbench.api.Run.edit`.

        Args:
            codes: n samples in Z, W or W+, on the device of the networks.
            steps: steps of the run, at least 0.
            target: class that the samples walk to; None as in `Run.edit`.

        Returns:
            n codes to decode.

        Raises:
            SpaceMismatch: the codes are of a space or a size in which no walk starts.
            Unsupported: the method cannot start from codes of this space.
            UnknownName: the attribute has no such class.
            EditbenchError: `target` is needed, `steps` is negative, or codes are not finite.
            WrongType: `steps` is not a number.
        """
        if not isinstance(steps, Real):
            raise WrongType(f"steps={steps!r} must be a number, at least 0")
        # A mode of the process, which another job may have changed since.
        use_precision(self.settings.precision, self.settings.device)
        check_at_least("steps", steps, 0)
        self._check_codes(codes)
        # Codes that were published as float64 arrays.
        codes = replace(codes, values=codes.values.float())
        source, towards = self._classes(codes, target)
        editor, generator, latent = adapt_to_codes(self.editor, self.networks.generator, codes)
        starts = Starts(np.arange(len(codes)), source, towards, threshold=np.nan)
        walk = begin_walk(editor, generator, self.settings.attribute, starts, latent)
        walker = StridedWalker(editor, walk, self.stride)
        return codes_to_decode(editor, walker.at(steps))

    def _check_codes(self, codes: Codes) -> None:
        generator = self.networks.generator
        spaces = [space for space in START_SPACES if space in generator.spaces]
        if codes.space not in spaces or codes.shift is not None:
            known = ", ".join(space.name for space in spaces)
            raise SpaceMismatch(f"an edit starts from codes in {known}, not in {codes.space.name}")
        shape: tuple[int, ...] = (len(codes), generator.code_dim(codes.space))
        if codes.space == Space.W_PLUS:
            shape = (len(codes), generator.num_ws, generator.w_dim)
        if codes.values.shape != shape:
            raise SpaceMismatch(
                f"{len(codes)} codes in {codes.space.name} have the shape {shape}, not "
                f"{tuple(codes.values.shape)}"
            )
        finite = codes.values.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            rows = (~finite).nonzero().flatten().tolist()
            raise EditbenchError(
                f"{len(rows)} of {len(codes)} codes have NaN or infinity, the first is codes"
                f"[{rows[0]}]: leave them out"
            )
        if self.editor.space == Space.Z and codes.space != Space.Z:
            raise Unsupported(
                f"{self.settings.method.name} walks in Z and needs codes in Z, not in "
                f"{codes.space.name}"
            )

    def _classes(self, codes: Codes, target: str | int | None) -> tuple[np.ndarray, np.ndarray]:
        """The classes that the samples walk from and to.

        Args:
            codes: n samples.
            target: class for all of them, or None.

        Returns:
            Two arrays (n,) int64. The source is the class that the judge sees, or another one for
            a sample that has the target class already.
        """
        about = self.networks.judge.attributes[self.settings.attribute]
        seen = self._judged(codes)
        if target is None:
            target = self.settings.target
        if isinstance(target, np.integer):
            target = int(target)
        if target is not None:
            wanted = self.networks.judge.attributes.class_index(about.name, target)
            other, _ = sides(about, wanted)
            source = np.where(seen == wanted, other, seen)
            return source, np.full_like(seen, wanted)
        if len(about.classes) > 2:
            raise EditbenchError(
                f"{about.name} has {len(about.classes)} classes: give target, one of "
                f"{', '.join(about.classes)}"
            )
        return seen, 1 - seen

    def _judged(self, codes: Codes) -> np.ndarray:
        """The judge's class (n,) int64 of every sample."""
        generator = self.networks.generator
        judge = self.networks.judge
        batches = Batches(engine_batch(self.settings, self.networks), "judging the codes")

        def label(rows: slice) -> Tensor:
            logits = judge(generator.decode(codes[rows]))
            return judge.attributes.labels(logits, self.settings.attribute)

        none = torch.zeros(0, dtype=torch.int64, device=codes.values.device)
        return torch.cat([none, *batches.run(len(codes), label)]).cpu().numpy()


def _changed_parts(record: Record, settings: Settings, job: Identified) -> str:
    """What differs from a finished run: ' (changed: bank)'; '' if its hashes do not tell."""
    then = record.provenance().get("hashes") or {}
    now = content_hashes(job.networks, job.bank.id, settings.method.target)
    changed = [PARTS[name] for name in PARTS if then.get(name) != now[name]]
    return f" (changed: {', '.join(changed)})" if changed else ""


def _announce_missing(settings: Settings, record: Record) -> None:
    """Print why the bank of a finished run is about to be built again, which may take long.

    Its cache was deleted, or is a relative path and the working folder is another one.
    """
    place = locate_bank(settings)
    if not place.is_built:
        print_message(
            f"{settings.cache.absolute()} does not have the bank of {record.folder.name}, because "
            "it was deleted or the run had another working folder: building it again"
        )
