from editbench.metrics.matched_effect.metric import MatchedEffect

__all__ = ["MatchedEffect"]
