"""StyleGAN3: its filters, activation, layers, network, and the network as a generator."""
