"""`offramp bench servers`: servers of several engines, side by side under the same load."""
