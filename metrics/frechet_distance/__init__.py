from editbench.metrics.frechet_distance.metric import FrechetDistance

__all__ = ["FrechetDistance"]
