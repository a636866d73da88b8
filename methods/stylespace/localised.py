"""StyleSpace by region: the candidates are the channels that act on an attribute's regions.

Wu, Lischinski & Shechtman, "StyleSpace Analysis: Disentangled Controls for StyleGAN Image
Generation", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Space
from editbench.methods.shared.control_search import MIN_EFFECT
from editbench.methods.stylespace.channels import Candidates, ChannelMoments, channel_name, movable
from editbench.methods.stylespace.editor import StyleSpace
from editbench.methods.stylespace.regions import DISCOUNT, MIN_MARGIN, MIN_RATE, localise
from editbench.networks.external import freeze
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData
from editbench.worlds import faces


class Parser(Protocol):
    """Pictures (N, 3, H, W) -> region labels (N, H, W) int64, indices into `names`."""

    names: Sequence[str]

    def __call__(self, images: Tensor, /) -> Tensor: ...


class LocalisedStyleSpace(StyleSpace):
    """StyleSpace whose candidates are the channels that act on the attribute's regions.

    Channels are assigned to regions by the overlap of their gradient maps, without labels; the
    teacher then chooses among them as in `StyleSpace`. The paper finds the channels of a region and
    names them by eye. The mapping from attributes to regions is this benchmark's choice.

    Args:
        parser: a Parser of the generator's images; None if there is none.
        regions: attribute -> names of its regions; an attribute without regions is not supported.
        images: number of fit samples whose gradient maps are used (the paper: 1000).
        size: side of the maps in pixels (the published code: 32), at most that of the images.
        discount: see editbench.methods.stylespace.regions.belongs.
        min_rate: see editbench.methods.stylespace.regions.select.
        min_margin: see editbench.methods.stylespace.regions.select.
        block: channels whose maps are in memory at a time.
        candidates: number of channels with the highest rates that are tried for each region.
        negative: as in `StyleSpace`, like the arguments after it.

    Raises:
        EditbenchError: an option is out of its range.
        UnknownName: the parser has no such region.
    """

    def __init__(
        self,
        parser: Parser | None,
        regions: Mapping[str, Sequence[str] | None],
        images: int = 1000,
        size: int = 32,
        discount: float = DISCOUNT,
        min_rate: float = MIN_RATE,
        min_margin: float = MIN_MARGIN,
        block: int = 256,
        candidates: int = 20,
        negative: str = "own",
        strengths: Sequence[float] = (5.0, 10.0, 20.0),
        samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 1.0,
    ) -> None:
        super().__init__(
            negative=negative,
            candidates=candidates,
            strengths=strengths,
            samples=samples,
            min_effect=min_effect,
            step=step,
        )
        if min(images, size, block) < 1:
            raise EditbenchError(
                f"images={images}, size={size} and block={block} must be at least 1"
            )
        self.parser = parser
        self.regions = {name: tuple(names or ()) for name, names in regions.items()}
        if parser is not None:
            if not hasattr(parser, "names"):
                raise EditbenchError("parser must be null or have a _target_ that makes a parser")
            # Without this check a misspelt region would only show as an attribute without channels.
            for names in self.regions.values():
                for name in names:
                    if name not in parser.names:
                        raise UnknownName("region of the parser", name, parser.names)
        self.images = int(images)
        self.size = int(size)
        self.block = int(block)
        self.discount = float(discount)
        self.min_rate = float(min_rate)
        self.min_margin = float(min_margin)

    def _candidates(
        self, data: FitData, bank: ChannelMoments, notes: dict[str, object]
    ) -> Candidates:
        assert self.parser is not None  # `check` has seen to it
        generator = data.generator
        names = list(self.parser.names)
        styles = generator.lift(data.latents(data.fit)[: self.images], Space.S)
        # Constant channels have no sigma, the unit of a step.
        channels = (movable(generator).to(bank.std.device) & bank.varies).nonzero()[:, 0]
        # No labels are used: one gradient map per sample and channel.
        found = localise(
            generator,
            freeze(self.parser, styles.device),
            len(names),
            styles,
            channels,
            self.size,
            self.block,
            self.discount,
            self.min_rate,
            self.min_margin,
        )
        # The cost of the maps, which is not visible in labels and decodes.
        notes["derivatives"] = len(styles) * len(channels)
        notes["images_of_region"] = dict(zip(names, found.images.tolist()))
        of_region = {}
        for name, own in zip(names, found.channels):
            of_region[name] = [channel_name(generator, channel) for channel in own.tolist()]
        notes["channels_of_region"] = of_region
        out = Candidates()
        for attribute in data.attributes:
            regions = self.regions.get(attribute.name, ())
            if not regions:
                continue
            offered = []
            for region in regions:
                own = found.channels[names.index(region)][: self.candidates]
                for channel in own.tolist():
                    # Sign 0, since gradient maps do not say in which direction the attribute grows.
                    offered.append((out.add_channel(generator, channel), 0))
            # Every class chooses among the same channels.
            out.offered[attribute.name] = [offered] * len(self._targets(attribute))
        return out

    def _labels_of_candidates(self, data: FitData) -> int:
        """None: candidates are found by gradient maps."""
        return 0

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        faces.check_regions("method.regions", self.regions, attributes)
        if self.parser is None or generator.output != "image":
            raise Unsupported(
                "localised channels need pictures and a parser of their regions: set method.parser"
            )
        if not self.regions.get(attribute):
            raise Unsupported(
                f"no region of the picture is named for '{attribute}' in method.regions"
            )
        if attribute in self.candidate_counts and not int(self.candidate_counts[attribute]):
            raise Unsupported(
                f"no style channel acts on {' or '.join(self.regions[attribute])} alone"
            )
        super().check(generator, attributes, attribute)
