from editbench.methods.neural_ode.editor import NeuralODE

__all__ = ["NeuralODE"]
