"""Scorers: classifiers of attributes from many sources, with one contract (`networks.scorer`).

- Of images: `module` wraps any nn.Module, `exported` a file with its architecture, `callable` a
  function, `celebahq` NVIDIA's classifiers; `convnet` is the embedded world's own.
- Of W codes: `latent_heads`.
- What they declare: `attribute_list`, and `columns` of their outputs. `config_file` reads the YAML
  of a scorer outside of a run.
"""
