"""Architectures of third-party weights, for `network: {_target_: ...}` in a configuration."""
