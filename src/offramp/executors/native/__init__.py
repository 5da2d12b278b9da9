"""The native executor."""

from offramp.executors.native.executor import KV_DTYPES, NativeExecutor, instruction_set
from offramp.executors.native.matrices import DTYPES
from offramp.executors.native.threads import default_threads

__all__ = ["DTYPES", "KV_DTYPES", "NativeExecutor", "default_threads", "instruction_set"]
