"""The engine decides: sequences and frontiers, blocks, batching, scheduling. It imports neither torch nor numpy."""
