"""One request alone, token by token: the answer every schedule has to agree with."""

from __future__ import annotations

from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.model import Model
from tests.oracle.run import Result, Run
from tests.oracle.verify import draft_and_check


def generate(model: Model, prompt: list[int], sampling: SamplingParams, exit: ExitParams | None = None) -> Result:
    """Generate for one request. `exit` None runs every layer; `sampling.seed` must be set.

    `fill`, `recompute`: the token chosen at an exit is output. `verify`: see `tests.oracle.verify`.
    """
    run = Run(model, prompt, sampling, exit)
    run.prefill()
    while run.finish_reason is None:
        if exit and exit.kv == "verify":
            draft_and_check(run)
            continue
        run.start(range(run.live, run.live + 1))
        if exit and exit.kv == "fill" and exit.fill_when == "iteration":
            run.fill()
        run.accept(run.next_choice())
    return run.result()
