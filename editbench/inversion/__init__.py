"""Real images: inversion into W, W+ or Z by optimisation, and walks from inverted images.

`load` gives a job its inversion: `images` are read, `build` computes blocks with `projector` and
`noise` by the options of `spec`, `store` opens the result, `page` shows it, `walks` starts from it.
"""
