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


def test_a_trial_begins_for_everybody_when_what_was_lost_is_one_percent_of_the_time_since() -> None:
    account = Account(spent=1.0, tokens=1000)
    assert [account.admit(now) for now in (5.0, 50.0, 104.9, 105.0, 105.0)] == [False] * 3 + [True] * 2
    for _ in range(Account.TRIAL):
        account.token()
    account.spent = 2.0
    assert [account.admit(now) for now in (200.0, 399.9, 400.0)] == [False, False, True]


def test_a_trial_that_pays_leaves_exits_on() -> None:
    account = Account(spent=1.0, tokens=1000)
    assert not account.admit(0.0) and account.admit(100.0)
    for _ in range(Account.TRIAL):
        account.token()
    account.saved, account.spent = 2.0, 1.0
    assert account.admit(100.0)


@on_each_executor
@pytest.mark.parametrize("kv", ["fill", "recompute", "verify"])
def test_a_trial_lets_exits_work_again(kv: KVPolicy) -> None:
    engine = make_engine(profitability=True, max_num_seqs=1)
    engine.meter.accounts[kv, 1] = Account(spent=1e6, tokens=1000, retry_at=0.0)
    Run(engine, [request((3, i), ExitParams(threshold=0.0, kv=kv)) for i in range(1, 3)])
    assert [min(report(engine.sequences[n]).exit_histogram) for n in range(2)] == [2, 2]


@on_each_executor
def test_what_does_not_pay_with_eight_may_pay_with_one() -> None:
    engine = make_engine(profitability=True, max_num_seqs=8)
    for size in (2, 3, 4):
        engine.meter.accounts["fill", size] = Account(spent=1e6, tokens=1000)
    exit = ExitParams(threshold=0.0)
    Run(engine, [request((3, i), exit) for i in range(1, 9)])
    (alone,) = engine.submit(request((3, 9), exit))
    while engine.has_work:
        engine.step()
    assert [report(engine.sequences[n]).switched_off for n in range(8)] == [True] * 8
    assert not report(engine.sequences[alone]).switched_off


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
    engine.meter.accounts[kv, 2] = Account(spent=1e6, tokens=1000)
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
            engine.meter.accounts["verify", 1] = Account(spent=1e6, tokens=1000)
        result = engine.step()
        plans.append(result.plan)
        tokens += [e.token for e in result.events]
        engine.check_integrity()
    assert plans[12].verify_off == (number,)
    assert tokens == Run(make_engine(), [request(max_tokens=30)]).tokens()
    assert report(engine.sequences[number]).switched_off


@on_each_executor
def test_under_verify_the_first_token_is_worth_no_more_than_its_check() -> None:
    """It comes of the prompt, whose rows cost exits nothing."""
    engine = make_engine(profitability=False, max_num_seqs=1)
    meter, values = engine.meter, list[float]()
    for length in (1, 2):
        Run(engine, [request(exit=ExitParams(threshold=1.0, kv="verify"), max_tokens=length)])
        values.append(meter.account("verify").saved)
        meter.accounts.clear()
    check, full = meter.costs.checks[-1].price(1), meter.costs.full_depth(1)
    assert values == pytest.approx([check, Account.FADE * check + full])


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
