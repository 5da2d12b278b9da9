"""The scripts' parts that touch no page, run in the browser they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def blank(page: Page) -> Page:
    page.goto("/static/favicon.svg")
    return page


def run(page: Page, module: str, names: str, body: str, *values: Any) -> Any:
    """What a function `body` of `v` returns, given some names of a module."""
    code = f"async (v) => {{ const {{ {names} }} = await import('/static/{module}.js'); {body} }}"
    return page.evaluate(code, list(values))


ALIGN = """
    const aligner = new Aligner();
    const settled = v[0].flatMap(([text, tokens]) => aligner.push(text, tokens.map((token) => ({ token }))));
    return [...settled, ...aligner.flush()].map(({ text, tokens }) => [text, tokens.map(({ token }) => token)]);
"""


@pytest.mark.parametrize(
    ("chunks", "pieces"),
    [
        ([["ab", ["a", "b"]], ["c", ["c"]]], [["a", ["a"]], ["b", ["b"]], ["c", ["c"]]]),
        ([["", ["\ufffd"]], ["é", ["\ufffd"]], ["x", ["x"]]], [["é", ["\ufffd", "\ufffd"]], ["x", ["x"]]]),
        ([["éx", ["\ufffd", "\ufffd", "x"]]], [["é", ["\ufffd", "\ufffd"]], ["x", ["x"]]]),
        ([["", ["Hel"]], ["Hel", ["lo"]], ["lo", []]], [["Hel", ["Hel"]], ["lo", ["lo"]]]),
        ([["Hello", ["Hello"]], [" w", [" world"]]], [["Hello", ["Hello"]], [" w", [" world"]]]),
        ([["abc", ["<s>", "abc"]]], [["", ["<s>"]], ["abc", ["abc"]]]),
        ([["abc", ["abc"]], ["", ["<end>"]]], [["abc", ["abc"]], ["", ["<end>"]]]),
        ([["no trace", []]], [["no trace", []]]),
    ],
    ids=["singly", "over chunks", "in one", "held back", "cut by a stop string", "special before", "end", "no trace"],
)
def test_text_and_tokens_find_each_other(blank: Page, chunks: list[Any], pieces: list[Any]) -> None:
    assert run(blank, "align", "Aligner", ALIGN, chunks) == pieces


ENGINE = {
    "num_layers": 30,
    "exit_layers": [10],
    "risks": {"0.1": "fill", "0.02": "fill", "task:0.05": "fill", "0": "verify"},
}


@pytest.mark.parametrize(
    ("engine", "most", "expected"),
    [
        (ENGINE, None, ["off", "lossless", "0.02", "0.1", "task:0.05"]),
        (ENGINE, 0.05, ["off", "lossless", "0.02", "task:0.05"]),
        ({**ENGINE, "risks": {}}, None, ["off", "lossless"]),
        ({**ENGINE, "exit_layers": []}, None, ["off"]),
    ],
    ids=["all", "capped", "no calibration", "no exits"],
)
def test_the_dial_has_the_positions_that_the_server_has(blank: Page, engine: Any, most: Any, expected: Any) -> None:
    assert run(blank, "dial", "positions", "return positions(v[0], v[1])", engine, most) == expected


@pytest.mark.parametrize(
    ("standard", "expected"),
    [("off", "lossless"), ("lossless", "lossless"), ({"risk": 0.02}, "0.02"), ({"criterion": "margin"}, "lossless")],
)
def test_the_dial_begins_at_the_server_s_default(blank: Page, standard: Any, expected: str) -> None:
    there = ["off", "lossless", "0.02"]
    assert run(blank, "dial", "start", "return start(v[0], v[1])", there, standard) == expected


def test_each_position_has_its_form_in_a_request_and_its_promise(blank: Page) -> None:
    forms = run(blank, "dial", "exitField", "return v[0].map(exitField)", ["off", "lossless", "0.02", "task:0.05"])
    traced: list[dict[str, Any]] = [{"mode": "off"}, {"mode": "lossless"}, {"risk": 0.02}, {"risk": "task:0.05"}]
    assert forms == [{**form, "trace": True} for form in traced]
    said = run(
        blank, "dial", "promise", "return v[0].map((p) => promise(p, v[1]))", ["off", "0.02", "task:0.05"], ENGINE
    )
    assert said[0] == "All 30 layers run for every token."
    assert said[1].startswith("Of the tokens generated for a prompt, 2% or fewer are expected to differ")
    assert said[2] == "Of the prompts, 5% or fewer are expected to lose a right answer."


def test_a_run_counts_what_came_and_when(blank: Page) -> None:
    body = """
        let now = 0;
        const run = new Run(10, () => now);
        const token = (layer) => ({ id: layer, layer });
        now = 0.5; run.take({ text: "a", tokens: [token(2)], finish: null, exit: null });
        now = 1.5; run.take({ text: "bc", tokens: [token(10), token(2)], finish: null, exit: null });
        const live = [run.count, run.firstToken, run.rate, run.meanLayer, run.early, run.saved, run.histogram];
        const exit = { layers_run: 20, layers_filled: 7, layers_skipped: 3 };
        run.take({ text: "", tokens: [], finish: "stop", exit });
        return [...live, run.saved, run.text];
    """
    count, first, rate, mean, early, saved, histogram, exact, text = run(blank, "run", "Run", body)
    assert (count, first, rate, text) == (3, 0.5, 2, "abc")
    assert (mean, early, saved) == pytest.approx((14 / 3, 2 / 3, 1 - 14 / 30))
    assert [(row["layer"], row["count"]) for row in histogram] == [(2, 2), (10, 1)]
    assert exact == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("ids", "said"),
    [([1, 2, 3], "Both outputs are equal, all 3 tokens."), ([1, 2], "They differ from token 3 on."),
     ([1, 9, 3], "They differ from token 2 on.")],
)  # fmt: skip
def test_a_race_says_whether_the_outputs_are_equal(blank: Page, ids: list[int], said: str) -> None:
    body = "return verdict({ ids: v[0], count: 3, rate: 10 }, { ids: v[1], count: 3, rate: 15 })"
    verdict = run(blank, "run", "verdict", body, [1, 2, 3], ids)
    assert verdict == f"The dial ran at 1.50 times the speed of full depth. {said}"


def test_events_are_read_however_they_are_cut(blank: Page) -> None:
    text = ': a comment\n\ndata: {"a": 1}\n\nevent: x\r\ndata: one\r\ndata: two\r\n\r\ndata: cut'
    body = "const reader = new EventReader(); return [...v[0]].flatMap((letter) => reader.push(letter))"
    assert run(blank, "api", "EventReader", body, text) == ['{"a": 1}', "one\ntwo"]


def test_an_error_says_what_the_server_said_and_what_to_do(blank: Page) -> None:
    body = "const error = errorOf(v[0], v[1], v[2]); return [error.message, error.hint]"
    told = {"error": {"message": "the queue is full"}}
    assert run(blank, "api", "errorOf", body, 429, told, "7") == [
        "the queue is full",
        "The server is busy. Try again in 7 s.",
    ]
    assert run(blank, "api", "errorOf", body, 502, None, None)[0] == "The server answered with status 502."


def test_prometheus_s_text_is_read(blank: Page) -> None:
    text = (
        "# HELP offramp_a_total words\n# TYPE offramp_a_total counter\n"
        'offramp_a_total{model_name="m\\"} \\n"} 5.0\nofframp_a_total{model_name="other"} 2\n'
        'offramp_t_total{model_name="m",what="a,\\"b\\""} 1e3\nb_bucket{le="+Inf",model_name="m"} +Inf 1234\n'
        "no sample\n"
    )
    assert run(blank, "prometheus", "parse", "return [...parse(v[0])].map(([k, n]) => [k, String(n)])", text) == [
        ["a_total", "7"],
        ['t_total{a,"b"}', "1000"],
        ["b_bucket{+Inf}", "Infinity"],
    ]


HISTORY = """
    const history = new History(30);
    for (const [t, samples] of v[0]) history.add(t, new Map(Object.entries(samples)));
"""


def test_a_counter_that_falls_has_begun_anew(blank: Page) -> None:
    scrapes = [[t, {"a_total": count, "gauge": count}] for t, count in ((0, 100), (2, 120), (4, 10), (6, 30))]
    body = HISTORY + "return [history.window(99).growth('a_total'), history.window(2).rate('a_total')]"
    assert run(blank, "history", "History", body, scrapes) == [50, 10]


def test_a_counter_that_appears_late_counts_from_zero(blank: Page) -> None:
    body = HISTORY + "return history.window(2).growth('a_total')"
    assert run(blank, "history", "History", body, [[0, {}], [2, {"a_total": 7}]]) == 7


def test_a_rate_after_lost_scrapes_is_the_mean_over_the_gap(blank: Page) -> None:
    body = HISTORY + "return history.window(2).rate('a_total')"
    assert run(blank, "history", "History", body, [[0, {"a_total": 0}], [20, {"a_total": 100}]]) == 5


def test_quantiles_lie_within_their_bucket(blank: Page) -> None:
    after = {"h_bucket{1}": 10, "h_bucket{2}": 20, "h_bucket{+Inf}": 20}
    body = HISTORY + "return [0.25, 0.5, 0.75, 1].map((q) => history.window(1).quantile('h', q))"
    assert run(blank, "history", "History", body, [[0, dict.fromkeys(after, 0)], [1, after]]) == [0.5, 1, 1.5, 2]
    assert run(blank, "history", "History", body, [[0, after], [1, after]]) == [None] * 4


def test_buckets_are_those_of_the_engine_there_is(blank: Page) -> None:
    before = {"h_bucket{10}": 60, "h_bucket{20}": 70, "h_bucket{30}": 100}
    after = {"h_bucket{6}": 60, "h_bucket{12}": 70, "h_bucket{30}": 90}
    body = HISTORY + "return history.window(1).buckets('h')"
    assert run(blank, "history", "History", body, [[0, before], [1, before], [2, {}], [3, after]]) == [
        [6, 60],
        [12, 10],
        [30, 20],
    ]


def test_an_axis_ends_at_a_round_number(blank: Page) -> None:
    tops = run(blank, "chart", "niceTop", "return v[0].map((x) => niceTop(x))", [0, 0.3, 3, 21, 1400])
    assert tops == [1, 0.5, 5, 50, 2000]
    tops = run(blank, "chart", "niceTop", "return v[0].map((x) => niceTop(x, true))", [0, 1, 3, 5, 21])
    assert tops == [2, 2, 4, 6, 40]


def test_nothing_and_all_are_told_from_nearly(blank: Page) -> None:
    shares = [0, 0.0001, 0.004, 0.5, 0.997, 1]
    said = run(blank, "dom", "percent", "return v[0].map(percent)", shares)
    assert said == ["0%", "<0.1%", "0.4%", "50%", ">99%", "100%"]


def test_a_layer_has_one_name_everywhere(blank: Page) -> None:
    body = "return v[0].map((layer) => layerName(layer, 30))"
    assert run(blank, "dom", "layerName", body, [0, 6, 30]) == ["embedding", "layer 6", "top (30)"]
