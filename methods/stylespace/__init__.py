from editbench.methods.stylespace.editor import StyleSpace
from editbench.methods.stylespace.localised import LocalisedStyleSpace

__all__ = ["LocalisedStyleSpace", "StyleSpace"]
