"""Real images: inversion into W, W+ or Z by optimisation, and walks from inverted images."""
