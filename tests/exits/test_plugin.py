"""The example plug-in, installed like any other package, is a criterion like any other."""

from __future__ import annotations

import json

import pytest

from offramp.cli.main import main
from offramp.errors import InvalidParameter
from offramp.exits.criteria import Signals, make_criterion, plugins


def at_exits(*probabilities: float) -> Signals:
    """A token at the last of some exits where the largest probability was this."""
    earlier: tuple[Signals, ...] = ()
    for boundary, probability in enumerate(probabilities, start=1):
        row = Signals(boundary, 10 * boundary, 0, 7, {"max_prob": probability}, earlier)
        earlier = (*earlier, row)
    return row


def test_an_installed_package_adds_a_criterion() -> None:
    assert plugins()["rising"] == "offramp_rising:Rising"


def test_doctor_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["plugins"]["rising"] == "offramp_rising:Rising"


def test_it_fires_where_the_probability_kept_rising() -> None:
    rising = make_criterion("rising", {"exits": 2})
    rows = [at_exits(0.2, 0.5, 0.6), at_exits(0.5, 0.2, 0.6), at_exits(0.2, 0.5), at_exits(0.1, 0.2, 0.5, 0.4)]
    assert rising.confidence(rows) == [0.6, None, None, None]


def test_its_options_are_checked() -> None:
    with pytest.raises(InvalidParameter, match=r"^`exits` must be a whole number of at least 1, not 0"):
        make_criterion("rising", {"exits": 0})
    with pytest.raises(InvalidParameter, match=r"criterion `rising` has no option `exit`"):
        make_criterion("rising", {"exit": 2})
