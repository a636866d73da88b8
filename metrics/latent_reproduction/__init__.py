from editbench.metrics.latent_reproduction.metric import LatentReproduction

__all__ = ["LatentReproduction"]
