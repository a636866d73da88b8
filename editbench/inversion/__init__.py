"""Real images: inversion into W, W+ or Z by optimisation, and inverted images as the starts of a job."""
