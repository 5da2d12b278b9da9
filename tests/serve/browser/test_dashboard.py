"""The dashboard, while an engine works, dies and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.serve.browser.conftest import Site

pytestmark = pytest.mark.browser

SEND = """(prompt) => fetch("v1/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt, max_tokens: 60, exit: { risk: 0.02 }, stream: true }),
}).then((answer) => answer.text())"""


@pytest.fixture
def dashboard(page: Page) -> Page:
    page.goto("/dashboard")
    page.select_option("#period", "1")
    page.wait_for_selector("#chart-tokens")
    return page


def tile(page: Page, name: str) -> str:
    return str(page.inner_text(f".tile:has(dt:text-is('{name}')) dd"))


def key(page: Page, chart: str) -> dict[str, str]:
    """The values beside a chart's names."""
    rows = f"#chart-{chart} .key tr"
    return dict(
        page.eval_on_selector_all(rows, "all => all.map((tr) => [...tr.children].map((one) => one.textContent))")
    )


def scraped(page: Page, times: int = 1) -> None:
    """Wait for so many scrapes more."""
    for _ in range(times):
        with page.expect_response("**/metrics"):
            pass
    page.evaluate("new Promise((done) => requestAnimationFrame(() => done(true)))")


def test_charts_follow_what_the_engine_does(dashboard: Page) -> None:
    scraped(dashboard)
    assert dashboard.locator("#chart-depth .area").count() == 0
    dashboard.evaluate(SEND, "some words to say")
    scraped(dashboard, 2)
    dashboard.wait_for_selector("#chart-tokens .line")
    assert dashboard.locator("#chart-depth .area").count() == 3
    shares = key(dashboard, "depth")
    assert list(shares) == ["layer 4", "layer 8", "top (12)"]
    assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=2)
    assert key(dashboard, "time") == {"layers": "62%", "checks": "7.7%", "fill": "7.7%", "top": "15%", "other": "7.7%"}
    assert 4 <= float(tile(dashboard, "mean exit layer")) <= 12


def test_counters_are_drawn_by_their_differences_over_a_restart(dashboard: Page, site: Site) -> None:
    dashboard.evaluate(SEND, "before")
    scraped(dashboard)
    site.do(site.client.crash())
    scraped(dashboard, 2)
    dashboard.evaluate(SEND, "after")
    scraped(dashboard, 2)
    assert tile(dashboard, "engine restarts") == "1"
    heights = dashboard.eval_on_selector_all(
        "#chart-tokens .line",
        "all => all.flatMap((p) => [...p.getAttribute('d').matchAll(/,([-\\d.]+)/g)].map((m) => +m[1]))",
    )
    assert heights and all(8 <= y <= 150 for y in heights)


def test_an_engine_that_is_down_is_said_to_be(dashboard: Page, site: Site) -> None:
    site.do(site.client.crash(restart=False))
    dashboard.wait_for_selector("#state:has-text('the engine is not up')")
    assert dashboard.is_hidden("#error")


def test_lost_scrapes_are_told_and_survived(dashboard: Page) -> None:
    dashboard.route("**/metrics", lambda route: route.abort())
    dashboard.wait_for_selector("#lost:has-text('2 scrapes in a row are lost')")
    dashboard.evaluate(
        "new MutationObserver(() => { window.said = true; }).observe($0, {childList: true})".replace(
            "$0", "document.querySelector('#error')"
        )
    )
    dashboard.wait_for_selector("#lost:has-text('4 scrapes in a row are lost')")
    assert dashboard.is_visible("#error") and not dashboard.evaluate("window.said ?? false")
    dashboard.unroute("**/metrics")
    dashboard.wait_for_selector("#error", state="hidden")
    assert dashboard.inner_text("#lost") == ""
    dashboard.wait_for_selector("#state:has-text('live')")


def test_a_hidden_page_asks_for_nothing(dashboard: Page) -> None:
    hide = (
        "(now) => { Object.defineProperty(document, 'hidden', { value: now, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    scraped(dashboard)
    dashboard.evaluate(hide, True)
    dashboard.wait_for_timeout(200)
    asked: list[str] = []
    dashboard.on("request", lambda request: asked.append(request.url))
    dashboard.wait_for_timeout(1500)
    assert asked == []
    assert "paused" in dashboard.inner_text("#state")
    dashboard.evaluate(hide, False)
    scraped(dashboard)
    assert "live" in dashboard.inner_text("#state")


def test_a_chart_tells_its_values_to_the_keyboard(dashboard: Page) -> None:
    scraped(dashboard, 3)
    dashboard.focus("#chart-requests .plot")
    dashboard.press("#chart-requests .plot", "ArrowLeft")
    label = dashboard.get_attribute("#chart-requests .plot", "aria-label") or ""
    assert "s ago: running 0, waiting 0" in label
    assert dashboard.locator("#chart-requests .cursor").count() == 1


def test_the_risk_of_shadow_samples_has_a_chart_where_it_is_measured(dashboard: Page) -> None:
    assert dashboard.locator("#chart-risk").count() == 0
    text = (
        'offramp_engine_up 1\nofframp_shadow_risk_ratio{dial="0.02"} 0.013\n'
        'offramp_shadow_risk_low_ratio{dial="0.02"} 0.01\nofframp_shadow_risk_high_ratio{dial="0.02"} 0.02\n'
    )
    scraped(dashboard, 3)
    line = "document.querySelector('#chart-tokens .line').getAttribute('d').split('L').length"
    before = dashboard.evaluate(line)
    dashboard.route("**/metrics", lambda route: route.fulfill(body=text))
    scraped(dashboard, 2)
    dashboard.wait_for_selector("#chart-risk .key td:has-text('1.3%')")
    assert dashboard.evaluate(line) >= before > 2
    assert key(dashboard, "risk") == {"0.02: measured": "1.3%", "0.02: at least": "1%", "0.02: at most": "2%"}
    assert dashboard.locator("#chart-risk .line.bound").count() == 2
