"""Statistics that need neither a network nor a record.

- Uncertainty: `intervals`. Ranks: `rank_correlation`, `ordering` (AUC).
- Two classifiers: `agreement`. Two sets of features: `moments` by blocks, `frechet` at once.
- Curves over the steps of walks: `first_crossing`.
"""
