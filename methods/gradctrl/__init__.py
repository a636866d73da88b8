from editbench.methods.gradctrl.editor import GradCtrl

__all__ = ["GradCtrl"]
