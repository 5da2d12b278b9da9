"""A soak of `offramp serve`: ten thousand mixed requests, bad clients, bad requests, and two engines killed.

    python -m scripts.soak --requests 10000 --concurrency 64

Ends with 1 where anything is wrong: a request without a result or a clear error, an output that is not that of full
depth where it has to be, a leaked block, memory that grows, a server that does not come back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from scripts.soak.run import Failed, Plan, Result, soak

SERVE = ("smollm2-135m", "--exits", "smollm2-135m", "--exit", "lossless", "--max-model-len", "1024")

SHOWN = 50
"""Violations that are printed."""


def report(plan: Plan, result: Result) -> list[str]:
    """What came of it, for a person."""
    totals: Counter[str] = Counter()
    for (_, outcome), count in result.judge.outcomes.items():
        totals[outcome] += count
    lines = [f"{result.ended} requests in {result.seconds:.0f} s, {plan.concurrency} at a time, seed {plan.seed}"]
    lines += [f"  {count:6d}  {outcome}" for outcome, count in totals.most_common()]
    lines.append("by kind")
    kinds = sorted({kind for kind, _ in result.judge.outcomes})
    for kind in kinds:
        found = {outcome: count for (one, outcome), count in result.judge.outcomes.items() if one == kind}
        lines.append(f"  {kind}: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items())))
    lines.append(f"{result.judge.compared} outputs compared with those of {len(result.judge.said)} requests")
    lines += [f"engine killed, ready again after {seconds:.2f} s" for seconds in result.restarts]
    for life in result.lives:
        if (growth := life.growth()) is not None:
            first, last, slope = growth
            lines.append(f"memory of {life.name}: {first:.0f} MiB, then {last:.0f}; {slope:+.2f} MiB for 1000 requests")
    for name in ("generation_tokens_total", "prompt_tokens_total", "preemptions_total", "kv_cache_usage_ratio"):
        lines.append(f"offramp_{name} {result.metrics.get(f'offramp_{name}', 0):g}")
    lines += [f"WRONG: {violation}" for violation in result.violations[:SHOWN]]
    lines.append(f"{len(result.violations)} violations" if result.violations else "nothing wrong")
    return lines


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m scripts.soak", description=__doc__)
    parser.add_argument(
        "serve", nargs="*", default=SERVE, help=f"words after `offramp serve` (default: {' '.join(SERVE)})"
    )
    parser.add_argument("--requests", type=int, default=Plan.requests)
    parser.add_argument("--concurrency", type=int, default=Plan.concurrency)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--kv-tokens", default="8192", help="small, so that all of it is soon in use")
    args = parser.parse_args()
    words = [*args.serve, "--kv-tokens", args.kv_tokens]
    plan = Plan(words, requests=args.requests, concurrency=args.concurrency, seed=args.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            result = asyncio.run(soak(plan, Path(folder), lambda line: print(line, flush=True)))
        except Failed as failed:
            print(f"WRONG: {failed}")
            return 1
    print("\n".join(report(plan, result)))
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
