"""Data sets that a researcher has: image folders with labels, arrays with factors, packed for
training a world."""
