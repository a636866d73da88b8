"""Readers of published data: latents, scores, boundaries, directions and channel statistics."""
