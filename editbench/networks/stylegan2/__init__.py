"""StyleGAN2: its operations, layers, network, and the network as a generator."""
