"""What a prefix-cache hit may cover, against the oracle and slot by slot."""

from __future__ import annotations

from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.plan import Plan
from offramp.engine.request import Request
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.inspector import Inspector
from tests.engine.paged import PagedExecutor
from tests.oracle.generate import generate
from tests.oracle.hash_model import HashModel

MODEL = HashModel()
SAMPLING = SamplingParams(max_tokens=12, ignore_eos=True, seed=0)
EARLY = ExitParams("replay", 1.0, options={"exit_layers": (5, 1, 2, 5, 1, 4, 5, 1, 5, 2, 1, 5)})


class Checked:
    """An engine with blocks of two tokens, inspected after every step, and the tokens it gave by sequence number."""

    def __init__(self) -> None:
        self.executor = PagedExecutor(MODEL, block_size=2, num_blocks=64)
        self.engine = Engine(self.executor, EngineConfig(profitability=False))
        self.inspector = Inspector(self.executor)
        self.tokens: dict[int, list[int]] = {}

    def submit(self, prompt: list[int], sampling: SamplingParams = SAMPLING, exit: ExitParams | None = None) -> int:
        [number] = self.engine.submit(Request(prompt, sampling, exit))
        self.tokens[number] = []
        return number

    def step(self) -> None:
        for event in self.engine.step().events:
            self.tokens[event.sequence].append(event.token)
        self.inspector(self.engine)

    def finish(self) -> None:
        while self.engine.has_work:
            self.step()


def test_a_hit_never_covers_the_last_prompt_token() -> None:
    checked = Checked()
    for _ in range(2):
        number = checked.submit([1, 2, 3, 4])
        checked.finish()
    assert checked.engine.sequences[number].cached_prompt_tokens == 2
    assert checked.tokens[0] == checked.tokens[1] == generate(MODEL, [1, 2, 3, 4], SAMPLING).tokens


def test_a_block_is_not_found_behind_another_prefix() -> None:
    checked = Checked()
    checked.submit([1, 2, 3, 4, 5])
    checked.finish()
    for prompt in ([3, 4, 1, 2, 6], [7, 8, 3, 4, 6]):
        number = checked.submit(prompt)
        checked.finish()
        assert checked.engine.sequences[number].cached_prompt_tokens == 0
        assert checked.tokens[number] == generate(MODEL, prompt, SAMPLING).tokens


def test_a_resumed_request_does_not_take_exact_blocks_for_its_filled_tokens() -> None:
    prompt = [1, 2, 3]
    alone = generate(MODEL, prompt, SAMPLING, EARLY)
    for preempt_at in range(5, 12):
        checked = Checked()
        twin = SamplingParams(max_tokens=1, ignore_eos=True, seed=0)
        checked.submit(prompt + alone.tokens, twin)
        checked.finish()
        number = checked.submit(prompt, exit=EARLY)
        while len(checked.tokens[number]) < preempt_at:
            checked.step()
        checked.engine.carry_out(Plan(0, 0, preempt=(number,)))
        checked.finish()
        assert checked.tokens[number] == alone.tokens
