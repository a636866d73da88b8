"""editbench: a comparative benchmark for GAN image editors."""

__version__ = "0.1.0"
