"""The experiment bench of pipeline parallelism in PyTorch."""

__version__ = "0.1.0"
