"""A third-party face GAN and face networks, from three public package archives.

`editbench fetch digiface` downloads the archives and converts them once to safetensors. They are
not part of this package.
"""
