"""The samples that all editors share: `bank` opens them, `build` computes them.

- Without torch: `spec` has the options, `layout` the folders of shards.
- Starts of walks: `starts`.
- Files of other projects: `importing` and `published`; `values` tells logits from probabilities.
- How far two scorers agree over a bank: `agreement`.
"""
