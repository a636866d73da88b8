"""StyleSpace: edits of single channels of S, which are found from positive exemplars.

Wu, Lischinski & Shechtman, "StyleSpace Analysis: Disentangled Controls for StyleGAN Image
Generation", CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, NoControl, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.base.validation import (
    check_at_least,
    check_choice,
    check_finite,
    check_kind,
    check_positive,
)
from editbench.methods.shared.control_search import (
    MIN_EFFECT,
    Effects,
    choose_control,
    measure_effects,
)
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.examples import class_counts, class_log_odds
from editbench.methods.shared.state import group, prefixed
from editbench.methods.stylespace.channels import (
    MIN_EXEMPLARS,
    Candidates,
    ChannelMoments,
    ChannelRanking,
    channel_moments,
    movable,
    positive_bank,
    rank_for_class,
)
from editbench.networks.generator import Generator
from editbench.walk.editor import DirectionSet, Editor, FitData, FitReport, Walk


class StyleSpace(Editor):
    """next = s + step * sigma * v, with v the direction chosen for the target class.

    ToRGB channels never move.

    Candidates are ranked by theta = |mean(delta)| / std(delta) over positive exemplars of a class.
    The paper's authors inspect the top channels by eye and keep one with the wanted effect; here
    the teacher decides (editbench.methods.shared.control_search).

    Args:
        positives: size of a class's positive bank, as a share of the fit samples, chosen by the
            teacher's log-odds (the published code: 1000 of 100,000).
        min_positives: minimum size of the positive bank.
        exemplars: number of its samples that are used (the paper: 10 to 30); None uses all (the
            published code's AllCheck).
        negative: class 0 of a binary attribute uses the reversed control of class 1 ('reverse', one
            channel walked both ways as in the paper), or has its own positives and channels
            ('own').
        channels: None for single channels; or a list of numbers m, each for an edit of the m top
            channels together, weighted by mean(delta), a variant that is not in the paper.
        candidates: number of top-ranked channels to choose from, if `channels` is None.
        verify: choose among the candidates on the tune split; otherwise the first candidate is
            used, with the sign of its mean(delta).
        strengths: strengths tried in both directions, in sigmas of the channel.
        samples: number of tune samples for the choice.
        min_effect: smallest effect that counts as a control, in sigmas of the log-odds.
        step: length of a step, in sigmas of the channel; for several channels the Euclidean length.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    space = Space.S
    unit = "sigmas of a style channel"
    citation = "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021"

    def __init__(
        self,
        positives: float = 0.01,
        min_positives: int = 100,
        exemplars: int | None = 30,
        negative: str = "reverse",
        channels: Sequence[int] | None = None,
        candidates: int = 20,
        verify: bool = True,
        strengths: Sequence[float] = (5.0, 10.0, 20.0),
        samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < positives <= 1 or min_positives < MIN_EXEMPLARS:
            raise EditbenchError(
                f"positives={positives} must be in (0, 1] and min_positives={min_positives} "
                f"at least {MIN_EXEMPLARS}"
            )
        if exemplars is not None and exemplars < MIN_EXEMPLARS:
            raise EditbenchError(
                f"exemplars={exemplars}: at least {MIN_EXEMPLARS} are needed to estimate a spread, "
                "or null for all positives"
            )
        check_at_least("candidates", candidates, 1)
        check_at_least("samples", samples, 1)
        check_positive("step", step)
        check_finite("min_effect", min_effect)
        if not strengths or not all(0 < size < math.inf for size in strengths):
            raise EditbenchError(
                f"strengths={list(strengths)} must be positive numbers; both signs are tried"
            )
        if channels is not None and not _are_counts(channels):
            raise EditbenchError(
                f"channels={channels} must be null or a list of channel counts, each at least "
                "1, as in channels=[1,5,10]"
            )
        check_kind("verify", verify, "bool")
        self.positives = float(positives)
        self.min_positives = int(min_positives)
        self.exemplars = exemplars
        check_choice("negative", negative, ("reverse", "own"))
        self.negative = negative
        self.channels = channels
        self.candidates = int(candidates)
        self.verify = verify
        # Both signs, since the exemplars' sign is a guess that the teacher checks.
        self.strengths = tuple(sign * float(a) for a in strengths for sign in (1, -1))
        self.samples = int(samples)
        self.min_effect = float(min_effect)
        self.length = float(step)
        # Name -> (K, d) float64, by target class: the change of S per sigma of strength.
        self.directions: dict[str, Tensor] = {}
        # Name -> (K,) effect of the control in sigmas of the log-odds
        self.effects: dict[str, Tensor] = {}
        self.candidate_counts: dict[str, Tensor] = {}  # name -> number of its candidates
        self.counts: dict[str, Tensor] = {}  # name -> (K,) fit samples of each class
        self._copies = DeviceCopies()

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        self.directions = {}
        self.effects = {}
        self.candidate_counts = {}
        self._count(data)
        # A channel's sigma is over the fit split's styles (the published code: 100,000 samples).
        bank = channel_moments(data.generator, data.latents(data.fit))
        notes: dict[str, object] = {}
        found = self._candidates(data, bank, notes)
        effects = self._measure(data, bank, found) if self.verify and found.rows else None
        for name in found.offered:
            notes[f"control.{name}"] = self._choose(data, bank, found, effects, name)
        # Verification reads the labels of tune samples.
        verified = len(effects.start) if effects else 0
        return FitReport(labels=self._labels_of_candidates(data) + verified, notes=notes)

    def _labels_of_candidates(self, data: FitData) -> int:
        """How many samples' labels the candidates are found with: here those of the fit split."""
        return len(data.fit)

    def _count(self, data: FitData) -> None:
        self.counts = {name: class_counts(data, name).cpu() for name in data.attributes.names}

    # -- all directions -------------------------------------------------------
    def fixed_directions(self, data: FitData) -> DirectionSet:
        """The candidates of all classes: the first of each ranking, then the second of each."""
        self._count(data)
        bank = channel_moments(data.generator, data.latents(data.fit))
        found = self._candidates(data, bank, {})
        rankings = []
        for of_attribute in found.offered.values():
            rankings += of_attribute
        order: dict[int, None] = {}  # positions, each once
        for rank in range(max((len(offered) for offered in rankings), default=0)):
            for offered in rankings:
                if rank < len(offered):
                    order[offered[rank][0]] = None
        if not order:
            raise Unsupported("no attribute has enough exemplars to rank style channels by")
        rows = torch.stack([found.rows[position] for position in order])
        sizes = tuple(sorted(size for size in self.strengths if size > 0))
        # From sigmas to units of S.
        moves = rows * bank.std.cpu()
        names = tuple(found.names[position] for position in order)
        return DirectionSet(names, sizes, self.unit, Space.S, {"moves": moves})

    def apply_direction(
        self, found: DirectionSet, place: int, strength: float, codes: Tensor
    ) -> Codes:
        return Codes(Space.S, codes + strength * found.tensors["moves"][place].to(codes))

    def _targets(self, attribute: Attribute) -> list[int]:
        """The classes that get their own control."""
        if attribute.binary and self.negative == "reverse":
            return [1]
        return list(range(len(attribute.classes)))

    def _candidates(
        self, data: FitData, bank: ChannelMoments, notes: dict[str, object]
    ) -> Candidates:
        """The top-ranked channels of every class.

        Attributes with too few exemplars of a class are left out.
        """
        out = Candidates()
        for attribute in data.attributes:
            name = attribute.name
            if self._too_few(attribute):
                continue
            odds = class_log_odds(data, name)
            labels = data.attributes.labels(data.fit.logits, name)
            out.offered[name] = []
            for c in self._targets(attribute):
                positives = positive_bank(odds[:, c], labels, c, self.positives, self.min_positives)
                ranking = rank_for_class(data, bank, positives, self.exemplars, name, c)
                if self.channels is None:
                    offered = self._single(data.generator, ranking, out)
                else:
                    offered = self._several(ranking, f"{name}:{attribute.classes[c]}", out)
                out.offered[name].append(offered)
        return out

    def _single(
        self, generator: Generator, ranking: ChannelRanking, out: Candidates
    ) -> list[tuple[int, int]]:
        """Candidates of a class: its top channels, with the signs of the exemplars."""
        offered = []
        for channel in ranking.order[: self.candidates if self.verify else 1].tolist():
            sign = 1 if ranking.delta[channel] > 0 else -1
            offered.append((out.add_channel(generator, channel), sign))
        return offered

    def _several(
        self, ranking: ChannelRanking, name: str, out: Candidates
    ) -> list[tuple[int, int]]:
        """Candidates of a class: its m top channels together, for each m."""
        rows = []
        for m in self.channels or ():
            row = torch.zeros_like(ranking.delta)
            row[ranking.order[:m]] = ranking.delta[ranking.order[:m]]
            # The weights already have the signs of the exemplars.
            rows.append((out.add(f"{name}, top {m}", row.cpu()), 1))
        return rows

    def _measure(self, data: FitData, bank: ChannelMoments, found: Candidates) -> Effects:
        """The effects of all candidates, each at every strength."""
        base = data.generator.lift(data.latents(data.tune)[: self.samples], Space.S)
        moves = (torch.stack(found.rows) * bank.std.cpu()).to(base)

        def apply(candidate: int, strengths: Tensor, positions: Tensor) -> Codes:
            return Codes(Space.S, base[positions] + strengths * moves[candidate])

        return measure_effects(
            data, apply, len(moves), self.strengths, self.samples, "style channels"
        )

    def _choose(
        self,
        data: FitData,
        bank: ChannelMoments,
        found: Candidates,
        effects: Effects | None,
        name: str,
    ) -> list[dict[str, object]]:
        """Choose and store the direction towards each class of one attribute, and its effect.

        Args:
            data: the attributes.
            bank: moments of the channels.
            found: the candidates.
            effects: of all candidates; None if they are not verified.
            name: the attribute.

        Returns:
            For each class with a control, a note for the record.
        """
        attribute = data.attributes[name]
        directions = torch.zeros(len(attribute.classes), len(bank.std), dtype=torch.float64)
        reached = torch.full((len(attribute.classes),), -torch.inf, dtype=torch.float64)
        notes = []
        for c, offered in zip(self._targets(attribute), found.offered[name]):
            if not offered:
                continue
            verified: dict[str, object] = {}
            if effects is None:
                position, exemplar_sign = offered[0]
                sign = exemplar_sign or 1
            else:
                # All candidates were measured together; a class chooses only among its own.
                positions = [position for position, _ in offered]
                own_effects = replace(effects, change=effects.change[positions])
                control = choose_control(own_effects, data.attributes, name, c, self.min_effect)
                position, exemplar_sign = offered[control.candidate]
                # The sign measured by the teacher, which may differ from that of the exemplars.
                sign = 1 if control.strength > 0 else -1
                reached[c] = control.effect
                verified = {
                    "rank": control.candidate + 1,
                    "strength": control.strength,
                    "effect": round(control.effect, 3),
                    "off_target": round(control.off_target, 3),
                }
                if exemplar_sign:
                    verified["sign_of_exemplars"] = exemplar_sign
            # From sigmas to units of S.
            directions[c] = sign * found.rows[position] * bank.std.cpu()
            chosen = {"class": attribute.classes[c], "channel": found.names[position], "sign": sign}
            notes.append(chosen | verified)
        # The paper walks one channel both ways.
        if self._targets(attribute) == [1]:
            directions[0] = -directions[1]
        self.directions[name] = directions
        if effects is not None:
            self.effects[name] = reached
        # Classes may share candidates; each is counted once.
        distinct = {position for offered in found.offered[name] for position, _ in offered}
        self.candidate_counts[name] = torch.tensor(len(distinct))
        return notes

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Coordinates of the styles along the direction of each class, with the walk's sign."""
        if attribute not in self.directions:
            return None
        styles = data.generator.lift(data.latents(data.tune), Space.S).double()
        return styles @ self.directions[attribute].to(styles).T

    # -- walk -----------------------------------------------------------------
    def _too_few(self, attribute: Attribute) -> str:
        """Why an attribute has too few exemplars; '' if it has enough."""
        counts = self.counts[attribute.name]
        few = []
        for c in self._targets(attribute):
            if counts[c] < MIN_EXEMPLARS:
                few.append(f"{attribute.classes[c]} ({counts[c]})")
        if not few:
            return ""
        return (
            f"the fit split holds fewer than {MIN_EXEMPLARS} positives of {attribute.name}: "
            f"{', '.join(few)}; a larger bank.n has more"
        )

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        there = int(movable(generator).sum())
        if self.channels is not None and max(self.channels) > there:
            raise EditbenchError(
                f"method.channels={list(self.channels)}: the generator has {there} style channels "
                "that may move (without ToRGB), and fewer that vary: ask for fewer of them"
            )
        if not self.counts:
            return  # not fitted yet
        if attribute not in self.directions:
            raise Unsupported(self._too_few(attributes[attribute]))
        if attribute not in self.effects:
            return  # chosen by rank, without verification
        # One class with a control is enough; edits towards the others count as failures.
        best = self.effects[attribute].max().item()
        if not bool((self.effects[attribute] >= self.min_effect).any()):
            tried = int(self.candidate_counts[attribute])
            raise NoControl(
                f"no control found for '{attribute}': the best of {tried} candidates moves it by "
                f"{best:.2f} sigma, {self.min_effect:g} are asked for"
            )

    def step(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.directions:
            raise Unsupported(f"no channel for '{walk.attribute}'")
        directions = self._copies.get(walk.attribute, self.directions[walk.attribute], walk.codes)
        return walk.codes + self.length * directions[walk.target]

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        return {
            **prefixed("direction", self.directions),
            **prefixed("effect", self.effects),
            **prefixed("offered", self.candidate_counts),
            **prefixed("count", self.counts),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.directions = group(state, "direction")
        self.effects = group(state, "effect")
        self.candidate_counts = group(state, "offered")
        self.counts = group(state, "count")


def _are_counts(values: object) -> bool:
    """Whether a value from a YAML is a non-empty list of positive integers."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        return False
    return all(type(value) is int and value >= 1 for value in values)
