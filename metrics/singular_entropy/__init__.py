from editbench.metrics.singular_entropy.metric import SingularEntropy

__all__ = ["SingularEntropy"]
