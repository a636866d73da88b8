"""A user's own data sets, packed for the training of a world.

They are image folders with labels, or arrays with factors.
"""
