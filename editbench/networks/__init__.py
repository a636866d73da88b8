"""Generators, scorers and feature networks: their contracts, architectures and files."""
