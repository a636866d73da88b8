"""Generators, scorers and feature networks: their contracts, architectures and files.

- Contracts: `generator`, `scorer`, `features`, `perceptual`; `roles` has the three networks of a job.
- Architectures: `stylegan` with `stylegan2` and `stylegan3`, `dcgan`, `lenet`, `mlp`.
- Networks as generators: `style_generator`, `module_generator`, `latent_only`, `twist`.
- Networks as scorers: `scorers`; `selected` restricts one to some attributes.
- Files of editbench: `weights`. Of other projects: `checkpoints`, `celebahq`, `digiface`, `pickles`,
  `torchscript`, `exported`, `external`; `own_folder` combines them for a user's folder. `digests`
  says which network of a user it is.
- Published files: `registry` says where they are, `fetch` downloads them.
- Speed: `winograd`, `frozen`.
"""
