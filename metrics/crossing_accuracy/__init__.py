from editbench.metrics.crossing_accuracy.metric import CrossingAccuracy

__all__ = ["CrossingAccuracy"]
