"""A T5 that was trained here runs as it was trained."""

from __future__ import annotations

from pathlib import Path

import torch

from offramp.exits.pack import static_exits
from offramp.models import load_any
from offramp.tune.t5 import DenseT5
from offramp.tune.t5_files import write_t5
from offramp.tune.t5_tokenizer import new_tokenizer
from offramp.types.executor import ScoreRow
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import make_executor, read_hidden, slots_of
from tests.executors.t5_toys import encode_all
from tests.executors.toys import block_tables, run_all
from tests.tune.t5_toys import SPEC, ragged, toy_weights, write_texts


def test_the_executor_computes_from_the_written_folder_what_training_computed(tmp_path: Path) -> None:
    weights = {name: tensor.half().float() for name, tensor in toy_weights().items()}
    texts = write_texts(tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    write_t5(tmp_path / "model", SPEC, weights, new_tokenizer(texts, SPEC.vocab_size))
    loaded = load_any(str(tmp_path / "model"))
    assert loaded.tokenizer.encode("whale")[-1] == loaded.tokenizer.eos_token_id == loaded.spec.eos_token_ids[0]
    exits = static_exits([0, 1, 2], SPEC.num_layers)
    executor = make_executor("torch", loaded.spec, loaded.weights, exits, block_size=4, num_blocks=32)
    source, lengths, given = ragged()
    dense = DenseT5(SPEC, weights, torch.float32)
    with torch.no_grad():
        states = dense.decode(given, dense.encode(source, lengths), range(4))
        log_probs = dense.logits(states[-1]).log_softmax(-1)
    sources = encode_all(executor, [row[:n].tolist() for row, n in zip(source, lengths.tolist(), strict=True)])
    tables = block_tables([26] * 3, 4, 32)
    run_all(executor, given.tolist(), tables, sources)
    for row, table in enumerate(tables):
        for layer in range(4):
            ours = torch.tensor(read_hidden(executor, layer + 1, slots_of(executor, range(26), table)))
            torch.testing.assert_close(ours.float(), states[layer][row], atol=2e-5, rtol=1e-4)
        scored = executor.score(4, [ScoreRow(p, table, SamplingParams(logprobs=20), 0) for p in range(26)], frozenset())
        for p, choice in enumerate(scored):
            assert choice.logprobs is not None
            tokens, found = zip(*choice.logprobs, strict=True)
            torch.testing.assert_close(torch.tensor(found), log_probs[row, p, list(tokens)], atol=1e-4, rtol=1e-4)
