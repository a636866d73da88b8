"""Readers of data that others published: latents, scores, boundaries, directions and channel statistics."""
