"""What `editbench new` writes: an editor, a metric, a world and a scorer, each with its YAML and a
test. The documentation shows the same files.
"""
