from editbench.metrics.identity.metric import Identity

__all__ = ["Identity"]
