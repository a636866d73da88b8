from editbench.metrics.control_disentanglement.metric import ControlDisentanglement

__all__ = ["ControlDisentanglement"]
