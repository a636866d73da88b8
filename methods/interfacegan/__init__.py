from editbench.methods.interfacegan.editor import InterFaceGAN

__all__ = ["InterFaceGAN"]
