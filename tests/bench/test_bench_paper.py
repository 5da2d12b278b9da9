"""`offramp bench paper` from the command line, on a toy checkpoint with a toy exit pack."""
