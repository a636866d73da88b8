from editbench.metrics.dependency_matrix.metric import DependencyMatrix

__all__ = ["DependencyMatrix"]
