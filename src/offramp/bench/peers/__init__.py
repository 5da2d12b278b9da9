"""Worker programs, one per engine. Each runs in the interpreter that has its engine."""
