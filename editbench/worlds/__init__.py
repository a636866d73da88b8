"""Data with known factors, and the training of networks on them.

- Data: `faces` renders them; `datasets` packs a user's own.
- Generator: `generator_training` starts or resumes the training loop of `train_gan`. `discriminator`
  is its opponent, `steering` and `linearity` are optional terms of its loss, and `capture` records
  its steps as CUDA graphs.
- Scorers and masks: `train_scorers`, `parser`.
- Quality of a world: `card`, `criteria`, `separability`.
"""
