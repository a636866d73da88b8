from editbench.methods.stylespace.editor import StyleSpace
from editbench.methods.stylespace.localised import LocalisedStyleSpace
from editbench.methods.stylespace.random_channel import RandomChannel

__all__ = ["LocalisedStyleSpace", "RandomChannel", "StyleSpace"]
