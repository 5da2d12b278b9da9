"""Self-speculation (LayerSkip, Elhoushi et al. 2024): tokens chosen at exits are drafts until the top agrees."""

from __future__ import annotations

from tests.oracle.run import Run


def draft_and_check(run: Run) -> None:
    """Draft until `max_draft`, no exit fires or a draft would end the request; then let the top judge every draft.

    The last of `max_draft` drafts goes to the top too, without a test: if it is right, the top's next choice comes for
    free.
    """
    assert run.exit is not None
    first = run.live
    drafts = run.drafts = []
    reason = None
    while len(drafts) < run.exit.max_draft and reason is None:
        run.start(range(run.live, run.live + 1))
        choice = run.next_choice()
        if choice.layer == run.model.num_layers:
            break
        drafts.append(choice)
        run.output.append(choice)
        reason = run.reason_to_finish()
    else:
        if reason is None:
            run.start(range(run.live, run.live + 1))
    run.drafts = []
    run.climb(run.model.num_layers)
    run.drafts_proposed += len(drafts)
    run.top_passes += 1
    processed = len(run.depth) - first
    del run.output[len(run.output) - len(drafts) :]
    for index in range(processed):
        judged = run.top_choice(first + index)
        agreed = index < len(drafts) and drafts[index].token == judged.token
        run.drafts_accepted += agreed
        run.accept(drafts[index] if agreed else judged)
        if run.finish_reason or not agreed:
            break
    forget_from(run, run.live)


def forget_from(run: Run, position: int) -> None:
    """Drop what was computed at `position` and after it."""
    for later in [p for p in run.depth if p >= position]:
        del run.depth[later], run.hidden[later]
        run.deep.pop(later, None)
    run.keys[:, position:] = run.values[:, position:] = float("nan")
