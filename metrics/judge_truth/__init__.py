from editbench.metrics.judge_truth.metric import JudgeTruth

__all__ = ["JudgeTruth"]
