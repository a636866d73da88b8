from editbench.metrics.composition.metric import CompositionSuccess

__all__ = ["CompositionSuccess"]
