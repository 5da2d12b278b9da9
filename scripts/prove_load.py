"""A public load generator against a running server: guidellm, with its own HTTP backend. No request may fail.

    make prove-load

Prompts are guidellm's synthetic ones, made with the model's tokenizer from a folder: nothing is fetched from a hub.
Its tables are printed as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.soak.server import Server
from scripts.soak.traffic import KEY
from scripts.tokenizer import save_tokenizer

MODEL = "smollm2-135m"
SERVE = (MODEL, "--exits", MODEL, "--exit", "lossless", "--kv-tokens", "16384", "--max-model-len", "2048")


def options(base: str, tokenizer: str, report: Path, args: argparse.Namespace) -> list[str]:
    """The words of the command line after `guidellm`."""
    server = {"target": base, "model": MODEL, "api_key": KEY, "request_format": args.path}
    given: dict[str, dict[str, Any]] = {
        "backend": {"kind": "openai_http", **server},
        "profile": {"kind": "concurrent", "streams": [int(one) for one in args.streams.split(",")]},
        "constraint": {"kind": "max_requests", "count": args.requests},
        "tokenizer": {"kind": "hf_auto", "model": tokenizer},
        "data": {"kind": "synthetic_text", "prompt_tokens": args.prompt_tokens, "output_tokens": args.output_tokens},
    }
    outputs = [{"kind": "console"}, {"kind": "json", "path": str(report)}]
    pairs = [*given.items(), *(("output", one) for one in outputs)]
    words = [word for name, value in pairs for word in (f"--{name}", json.dumps(value))]
    return ["run", *words, "--disable-progress"]


def failed(report: Path) -> tuple[int, int]:
    """Requests that succeeded, and that did not, over all benchmarks of guidellm's report."""
    found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    totals = [one["metrics"]["request_totals"] for one in found]
    good = sum(total["successful"] for total in totals)
    return good, sum(total["errored"] + total["incomplete"] for total in totals)


async def prove(args: argparse.Namespace, folder: Path) -> int:
    """Run guidellm; returns the exit code."""
    tokenizer, report = save_tokenizer(MODEL, folder / "tokenizer"), folder / "report.json"
    server = await Server.start(SERVE, folder)
    words = options(f"http://{server.address[0]}:{server.address[1]}", tokenizer, report, args)
    program = Path(sys.executable).with_name("guidellm")
    running = await asyncio.create_subprocess_exec(program, *words, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    code = await running.wait()
    wrong = await server.stop()
    good, bad = failed(report) if code == 0 else (0, 0)
    print(f"guidellm ended with {code}: {good} requests succeeded, {bad} did not", *wrong, sep="\n")
    return int(bool(code or bad or wrong or not good))


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", default="/v1/chat/completions", help="or /v1/completions")
    parser.add_argument("--streams", default="1,8,32", help="users at once, one benchmark for each")
    parser.add_argument("--requests", type=int, default=32, help="of each benchmark")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(prove(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
