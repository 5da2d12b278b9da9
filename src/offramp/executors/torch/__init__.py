"""The torch executor."""

from offramp.executors.torch.executor import TorchExecutor, set_threads

__all__ = ["TorchExecutor", "set_threads"]
