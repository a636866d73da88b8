"""Data with known factors, and the training of networks on them.

- Data: `faces` draws them, `datasets` packs those of a user.
- The generator: `generator_training` runs a training of `train_gan`, with `discriminator`,
  `steering` and `linearity` as terms of the loss, and `capture` for GPUs.
- Scorers and masks: `train_scorers`, `parser`.
- How good a world is: `card`, `criteria`, `separability`.
"""
