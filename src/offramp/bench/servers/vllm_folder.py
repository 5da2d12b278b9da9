"""The folder that vLLM's server reads: the worker's conversion of a GGUF file, which has the tokenizer too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.bench.engines import WORKERS
from offramp.bench.servers.process import ServerFailed


def vllm_folder(files: Mapping[str, Any], python: str) -> Path:
    """The model in Hugging Face form, converted by vLLM's Python if need be.

    Raises:
        ServerFailed: it cannot be converted.
    """
    script = WORKERS / "run_vllm.py"
    if files["form"] != "gguf":
        return Path(files["plain"])
    done = subprocess.run(
        [python, str(script), "--folder", json.dumps(dict(files))], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerFailed(f"the model cannot be converted: {done.stderr.strip().splitlines()[-1:]}")
    return Path(files["folder"])
