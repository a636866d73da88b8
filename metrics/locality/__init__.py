from editbench.metrics.locality.metric import Locality

__all__ = ["Locality"]
