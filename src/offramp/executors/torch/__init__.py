"""The torch executor."""

from offramp.executors.torch.executor import TorchExecutor

__all__ = ["TorchExecutor"]
