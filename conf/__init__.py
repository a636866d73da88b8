"""The configuration of `editbench run`: run.yaml and one folder for each group of options. It holds no code."""
