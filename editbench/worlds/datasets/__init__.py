"""Data sets that a researcher has, packed for training a world.

They are image folders with labels, or arrays with factors.
"""
