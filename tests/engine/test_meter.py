"""The profitability switch: exits go off while they cost more than they save, and are tried again."""

from __future__ import annotations

import pytest

from offramp.engine.accounting import report
from offramp.engine.costs import CostModel
from offramp.engine.meter import Account, Meter
from offramp.types.exits import ExitParams, KVPolicy
from tests.engine.toy_engine import Run, make_engine, request

on_each_executor = pytest.mark.usefixtures("each_executor")


def test_too_few_tokens_decide_nothing() -> None:
    account = Account(spent=1.0)
    for _ in range(account.decide_at - 1):
        account.token()
    assert account.pays
    account.token()
    assert not account.pays


def test_after_going_off_the_sixteenth_request_begins_a_trial_for_everybody() -> None:
    account = Account(spent=1.0, tokens=1000)
    assert [account.admit() for _ in range(18)] == [False] * 15 + [True] * 3
    for _ in range(Account.TRIAL):
        account.token()
    account.spent = 1.0
    assert not account.admit()


@on_each_executor
@pytest.mark.parametrize("kv", ["fill", "recompute", "verify"])
def test_a_trial_lets_exits_work_again(kv: KVPolicy) -> None:
    engine = make_engine(profitability=True, max_num_seqs=1)
    engine.meter.accounts[kv] = Account(spent=1e6, tokens=1000)
    Run(engine, [request((3, i), ExitParams(threshold=0.0, kv=kv)) for i in range(1, 18)])
    left = [min(report(engine.sequences[n]).exit_histogram) for n in range(17)]
    assert left == [8] * 15 + [2, 2]


def test_the_recent_past_counts_more() -> None:
    account = Account(spent=10.0, tokens=1000)
    for _ in range(3000):
        account.token()
        account.saved += 0.01
    assert account.pays


@on_each_executor
@pytest.mark.parametrize("kv", ["fill", "recompute"])
def test_fill_and_recompute_switch_at_admission_and_say_so(kv: KVPolicy) -> None:
    engine = make_engine(profitability=True)
    engine.meter.accounts[kv] = Account(spent=1e6, tokens=1000)
    run = Run(engine, [request(exit=ExitParams(threshold=0.0, kv=kv)), request()])
    assert not run.plans[0].admit[0].exits_on
    assert run.tokens(0) == run.tokens(1) and set(run.exit_layers(0)) == {8}
    assert report(engine.sequences[0]).switched_off and not report(engine.sequences[1]).switched_off


@on_each_executor
def test_verify_stops_drafting_in_the_middle_and_keeps_its_promise() -> None:
    engine = make_engine(profitability=True)
    (number,) = engine.submit(request(exit=ExitParams(threshold=0.0, kv="verify"), max_tokens=30))
    tokens, plans = [], []
    for step in range(10_000):
        if not engine.has_work:
            break
        if step == 12:
            engine.meter.accounts["verify"] = Account(spent=1e6, tokens=1000)
        result = engine.step()
        plans.append(result.plan)
        tokens += [e.token for e in result.events]
        engine.check_integrity()
    assert plans[12].verify_off == (number,)
    assert tokens == Run(make_engine(), [request(max_tokens=30)]).tokens()
    assert report(engine.sequences[number]).switched_off


@on_each_executor
def test_exits_that_never_fire_go_off_by_themselves() -> None:
    engine = make_engine(profitability=True, max_num_seqs=1)
    never_sure = ExitParams(threshold=1.0)
    Run(engine, [request(exit=never_sure, max_tokens=40) for _ in range(6)])
    switched = [report(engine.sequences[n]).switched_off for n in range(6)]
    assert switched == [False, False, True, True, True, True]


@on_each_executor
def test_without_switching_prices_stay_and_exits_stay_on() -> None:
    engine = make_engine(profitability=False)
    before = CostModel.from_layers(engine.executor.shape.layers_at)
    Run(engine, [request(exit=ExitParams(threshold=1.0), max_tokens=40) for _ in range(3)])
    assert engine.costs.segments == before.segments
    assert isinstance(engine.meter, Meter) and engine.meter.time.layers > 0
