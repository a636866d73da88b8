from editbench.methods.stylespace.editor import StyleSpace

__all__ = ["StyleSpace"]
