"""The public Python API."""

from offramp.llm.llm import LLM

__all__ = ["LLM"]
