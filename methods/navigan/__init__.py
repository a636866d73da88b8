from editbench.methods.navigan.editor import NaviGAN

__all__ = ["NaviGAN"]
