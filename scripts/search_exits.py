"""Which exits suit a model best, by successive halving (Jamieson and Talwalkar 2016): all candidates on few tokens of
the model's own, then the better half on twice as many, and so on.

    python scripts/search_exits.py --out search --device cuda --tokens 200k --rounds 4 --jobs 4

A candidate is a set of options of `offramp tune`. What it is judged by is the price of a token, a layer being 1: the
best of its exits, where all tokens leave that may with 95% precision on held-out data, and are filled. Heads of several
exits have nothing in common, so from the second round on only the best one of each candidate is trained.
`OUT/search.json` has every run with its curves, and is written after each; what it has is not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import prod
from pathlib import Path
from typing import Any

from offramp.cli.values import token_count
from offramp.exits.pack import ExitSpec
from offramp.exits.read import read_pack
from offramp.llm.backend import choose_backend
from offramp.models import load_model
from offramp.models.spec import ModelSpec
from offramp.models.tensors import expected_tensors
from offramp.tune.request import TuneRequest
from offramp.tune.settings import DataSettings
from offramp.tune.workshop import Workshop
from offramp.weights.eight_bits import EightBitsFile

PLAIN = {
    **{f"heads {a} 8192": f"--recipe heads --adapter {a}" for a in ("none", "linear", "mlp")},
    "heads mlp 4096": "--recipe heads --head-words 4096",
    "heads mlp 16384": "--recipe heads --head-words 16384",
    "heads mlp 8192 own rows": "--recipe heads --head own",
    "heads mlp 8192 router": "--recipe heads,router",
}
CANDIDATES = {
    **{f"{name}, 12 to 25": f"{options} --exits 12,16,20,25" for name, options in PLAIN.items()},
    **{f"heads {a} 8192, 0 to 8": f"--recipe heads --adapter {a} --exits 0,2,5,8" for a in ("none", "linear", "mlp")},
    **{f"deep mlp {n}, 0 to 5": f"--recipe deep --head-words {n} --exits 0,1,2,5" for n in (4096, 8192, 16384)},
    "deep mlp 8192, 8 to 20": "--recipe deep --exits 8,12,16,20",
    "layerskip, 8 and 16": "--recipe layerskip --exits 8,16 --lr 5e-4 --batch-tokens 4096",
    "layerskip, 5, 12 and 20": "--recipe layerskip --exits 5,12,20 --lr 5e-4 --batch-tokens 4096",
}
"""Name -> options of `offramp tune`, without those that all share."""

SHARED = "--lr 2e-3 --batch-tokens 8192 --evaluations 6"

Run = dict[str, Any]


def layer_size(spec: ModelSpec) -> int:
    """Weights of a layer."""
    return sum(prod(shape) for name, shape in expected_tensors(spec).items() if name.startswith("model.layers.0."))


def price(exit_: ExitSpec, share: float, check: int, words: int, spec: ModelSpec) -> float:
    """Of a token, in layers, with this exit alone.

    Args:
        share: of tokens that leave there.
        check: weights of the exit's own, besides its rows of the LM head.
        words: rows that it scores.
    """
    layer, depth = layer_size(spec), spec.num_layers
    top = spec.vocab_size * spec.hidden_size / layer
    fill = (depth - exit_.layer) * 2 * spec.num_kv_heads * spec.head_dim * spec.hidden_size / layer
    scored = share if exit_.classifier != "none" else 1.0
    test = check / layer + scored * words * spec.hidden_size / layer
    return exit_.layer + test + share * fill + (1 - share) * (depth - exit_.layer + top)


def judged(folder: Path, spec: ModelSpec) -> Run:
    """What a finished run says: price, exits with what leaves at 95% precision, and curves."""
    pack, weights = read_pack(folder), EightBitsFile(folder / "exits.safetensors").shapes
    said = pack.provenance
    shares = {entry["layer"]: entry for entry in said.get("router") or said["exits"]}
    prices = {}
    for exit_ in pack.exits:
        own = {name: prod(shape) for name, shape in weights.items() if name.startswith(f"exits.{exit_.layer}.")}
        own.pop(f"exits.{exit_.layer}.head.weight", None)
        words = len(pack.vocabularies[exit_.vocabulary]) if exit_.vocabulary else spec.vocab_size
        share = shares[exit_.layer]["at_precision"]["0.95"]["share"]
        prices[exit_.layer] = price(exit_, share, sum(own.values()), words, spec)
    exits = {
        str(at): {"agreement": e["agreement"], "share": e["at_precision"]["0.95"]["share"]} for at, e in shares.items()
    }
    history = [
        {"tokens": entry["tokens"], "agreement": {at: e["agreement"] for at, e in entry["exits"].items()}}
        for entry in said["history"]
    ]
    return {"price": min(prices.values()), "prices": prices, "exits": exits, "history": history}


def halve(prices: Mapping[str, float]) -> list[str]:
    """The better half, at least one, the cheapest first."""
    return sorted(prices, key=prices.__getitem__)[: max(1, len(prices) // 2)]


def options_of(name: str, before: Run | None) -> str:
    """Options of a candidate; after a round `before`, of heads only the best exit is left."""
    options = CANDIDATES[name]
    if before is None or not options.startswith("--recipe heads"):
        return options
    best = min(before["prices"], key=before["prices"].__getitem__)
    return re.sub(r"--exits \S+", f"--exits {best}", options)


def search(
    names: Sequence[str],
    rounds: int,
    tokens: int,
    known: dict[str, dict[str, Run]],
    run: Callable[[int, str], Run],
    jobs: int,
) -> Iterator[tuple[str, str]]:
    """Fill `known` (tokens of a round -> name -> run); yields what was just added.

    A run that fails is out, with its exit code as `failed`.
    """
    for number in range(rounds):
        key = str(tokens << number)
        done = known.setdefault(key, {})
        with ThreadPoolExecutor(jobs) as pool:
            waiting = {pool.submit(run, int(key), name): name for name in names if name not in done}
            try:
                for future in as_completed(waiting):
                    done[waiting[future]] = future.result()
                    yield key, waiting[future]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # or it would begin with all that wait
                raise
        names = halve({name: done[name]["price"] for name in names if "price" in done[name]})


def make_data(model: str, work: Path, device: str, settings: DataSettings) -> int:
    """Make what all runs learn from, in the folder `work`."""
    backend = choose_backend("auto", device, "auto", "auto")
    request = TuneRequest(model, work, backend, work=work, data=settings)
    Workshop(load_model(model), request, lambda done, total, text: print(text, file=sys.stderr)).samples()
    return 0


def main() -> int:
    """Run the search and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=token_count, default=200_000, help="answer tokens of the first round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--batch", type=int, default=2048, help="conversations side by side while data are made")
    parser.add_argument("--only-data", action="store_true", help="make the data, and stop")
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    work, report = out / "work", out / "search.json"
    if args.only_data:
        most = DataSettings(tokens=args.tokens << (args.rounds - 1), batch=args.batch)
        return make_data(args.model, work, args.device, most)
    # In a process of its own, which gives the device's memory back.
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only-data"], check=True)
    spec = load_model(args.model).spec
    known = json.loads(report.read_bytes()) if report.is_file() else {}

    def run(tokens: int, name: str) -> Run:
        folder = out / f"{tokens}-{name.replace(' ', '-').replace(',', '')}"
        options = f"{SHARED} --epochs {args.epochs} --tokens {tokens} --batch {args.batch} --device {args.device}"
        own = options_of(name, known.get(str(tokens // 2), {}).get(name))
        going = "--resume" if (folder / "run" / "settings.json").is_file() else ""
        command = f"-m offramp tune {args.model} --out {folder} --work {work} {options} {own} {going} --json"
        with (out / f"{folder.name}.log").open("w") as log:
            code = subprocess.run([sys.executable, *shlex.split(command)], stdout=log, stderr=log).returncode
        return {"failed": code} if code else judged(folder, spec)

    for tokens, name in search(list(CANDIDATES), args.rounds, args.tokens, known, run, args.jobs):
        report.write_text(json.dumps(known, indent=1))
        print(tokens, name, known[tokens][name].get("price"), known[tokens][name].get("exits"), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
