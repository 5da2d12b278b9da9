"""How long `offramp serve` takes from its start to its first answers, with the model's files at hand: a median of five.

    make prove-start

`health` is the first answer of the HTTP side, `token` the first completion of one token, both as curl would get them;
`processor` is what all of it costs in processor time, on a busy machine as on an idle one.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

PORT = 8947
SERVE = ("smollm2-135m", "--exits", "smollm2-135m", "--exit", "lossless")
BODY = b'{"prompt": "Once upon a time", "max_tokens": 1}'


def answered(path: str, body: bytes | None = None) -> bool:
    """Whether a request succeeds."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.HTTPError):
        return False


def start() -> tuple[float, float, float]:
    """Seconds from the start of a server to (health, token), and of processor time; the server is ended again."""
    begin, spent = time.perf_counter(), processor_seconds()
    command = [sys.executable, "-m", "offramp", "serve", *SERVE, "--port", str(PORT)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    seconds = []
    try:
        for path, body in (("/health", None), ("/v1/completions", BODY)):
            while not answered(path, body):
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with code {process.returncode}")
                time.sleep(0.02)
            seconds.append(time.perf_counter() - begin)
    finally:
        process.terminate()
        process.wait()
    return seconds[0], seconds[1], processor_seconds() - spent


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measure; 1 where the median is more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--limit", type=float, default=5.0, help="seconds to the first token")
    args = parser.parse_args()
    start()  # files are read and packed weights are written
    found = [start() for _ in range(args.starts)]
    for name, column in zip(("health", "token", "processor"), zip(*found, strict=True), strict=True):
        print(f"{name}: {statistics.median(column):.2f} s ({min(column):.2f}-{max(column):.2f})")
    return int(statistics.median(token for _, token, _ in found) > args.limit)


if __name__ == "__main__":
    sys.exit(main())
