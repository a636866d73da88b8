from editbench.metrics.logit_scatter.metric import LogitScatter

__all__ = ["LogitScatter"]
