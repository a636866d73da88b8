"""What an observation after the walk looks at, in the toy world."""

from dataclasses import replace
from pathlib import Path

from editbench.walk.editor import Editor
from editbench.walk.observation import ObservationContext
from tests.by_config import load_bank, load_networks
from tests.toy_world import AlongColumn

DELTA = 0.5


def scene_of(cfg, editor: Editor | None = None, **changes) -> ObservationContext:
    networks, bank = load_networks(cfg), load_bank(cfg)
    context = ObservationContext(
        editor or AlongColumn(DELTA),
        networks.generator,
        networks.teacher,
        networks.judge,
        bank,
        "a",
        None,
        0,
        "cpu",
        64,
        Path(cfg.cache),
    )
    return replace(context, **changes)
