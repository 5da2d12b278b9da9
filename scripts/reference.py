"""Write the reference outputs that tests compare with: greedy tokens and logits of the default model in Transformers.

    make reference

Reads the default model's GGUF file through Transformers' own loader, in float32, one prompt at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from offramp.models import resolve

TARGET = Path(__file__).parent.parent / "tests" / "reference" / "smollm2-135m.json"
NUM_TOKENS = 64
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "Photosynthesis is the process by which",
    "1, 1, 2, 3, 5, 8,",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three laws of motion are:\n1.",
    "To bake bread you need",
    "In 1969, humans first",
    "Q: What is the boiling point of water?\nA:",
    "import numpy as np\n\nx = np.",
    "The quick brown fox",
    "Shakespeare wrote many plays, among them",
    "| name | age |\n|---|---|\n| Ann | 31 |\n|",
    "My favourite season is autumn because",
    '{"user": {"id": 17, "name": "',
    "The difference between a virus and a bacterium is",
    "Il était une fois",
    "SELECT name, price FROM products WHERE",
    "Gravity is a force that",
]


def load() -> tuple[Any, Any]:
    """The default model and its tokenizer in Transformers, float32, in evaluation mode."""
    path = resolve("smollm2-135m").path
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, **options)


def greedy(model: Any, prompt: list[int], num_tokens: int) -> list[int]:
    """Greedy continuation that does not stop at the end-of-sequence token."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return list(out[0, len(prompt) :].tolist())


def main() -> None:
    model, tokenizer = load()
    cases = []
    for text in PROMPTS:
        prompt = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt])).logits[0, -1]
        top = logits.topk(8)
        cases.append(
            {
                "text": text,
                "prompt": prompt,
                "tokens": greedy(model, prompt, NUM_TOKENS),
                "top_ids": top.indices.tolist(),
                "top_logits": [round(x, 5) for x in top.values.tolist()],
            }
        )
        print(f"{len(cases)}/{len(PROMPTS)} {text!r}", flush=True)
    content = {"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(content, ensure_ascii=False, indent=None).replace('{"text"', '\n{"text"') + "\n")


if __name__ == "__main__":
    main()
