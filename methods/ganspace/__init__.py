from editbench.methods.ganspace.editor import GANSpace

__all__ = ["GANSpace"]
