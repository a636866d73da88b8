from editbench.metrics.attribute_dependency.metric import AttributeDependency

__all__ = ["AttributeDependency"]
