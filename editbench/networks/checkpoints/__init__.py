"""Reading other projects' checkpoints as StyleGAN2 or StyleGAN3, without running their code."""

from editbench.networks.checkpoints.assemble import CheckpointContent, Rule, assemble
from editbench.networks.checkpoints.detect import read_content, source_of

__all__ = ["CheckpointContent", "Rule", "assemble", "read_content", "source_of"]
