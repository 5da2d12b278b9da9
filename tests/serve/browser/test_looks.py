"""Both pages: light and dark, narrow and wide, and readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PATHS = ("/", "/dashboard")

CONTRAST = """(pairs) => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (colour) => {
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((n) => n / 255)
            .map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const probe = document.body.appendChild(document.createElement("p"));
    const resolved = (colour) => {
        probe.style.color = colour;
        return getComputedStyle(probe).color;
    };
    return pairs.map((pair) => {
        const [low, high] = pair.map((colour) => light(resolved(colour))).sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    });
}"""

TINTS = [f"color-mix(in oklab, var(--tint-deep) {share}%, var(--tint-shallow))" for share in (0, 25, 50, 75, 100)]
BARS = [f"color-mix(in oklab, var(--bar-deep) {share}%, var(--bar-shallow))" for share in (0, 50, 100)]
TEXT = [
    *(("var(--text)", ground) for ground in ("var(--page)", "var(--surface)", "var(--raised)", *TINTS)),
    *(("var(--muted)", ground) for ground in ("var(--page)", "var(--surface)", "var(--raised)")),
    *(("var(--accent)", ground) for ground in ("var(--page)", "var(--surface)", "var(--raised)")),
    ("var(--on-accent)", "var(--accent)"),
    ("var(--text)", "var(--danger-surface)"),
    ("var(--danger)", "var(--danger-surface)"),
]
GRAPHICS = [
    *((f"var(--series-{i})", "var(--surface)") for i in range(5)),
    *((bar, "var(--surface)") for bar in [*BARS, "var(--bar-top)"]),
    ("var(--field-line)", "var(--page)"),
    ("var(--field-line)", "var(--surface)"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_the_contrast_that_wcag_aa_asks_for(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto("/")
    for pairs, least in ((TEXT, 4.5), (GRAPHICS, 3.0)):
        found = dict(zip(pairs, page.evaluate(CONTRAST, pairs), strict=True))
        assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


@pytest.mark.parametrize("path", PATHS)
def test_the_theme_follows_the_system_until_it_is_chosen(page: Page, path: str) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    page.goto(path)
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.click("#theme")
    assert (page.inner_text("#theme"), page.evaluate(ground)) == ("Theme: light", light)
    page.reload()
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.evaluate(ground) == dark


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", [320, 800, 1600])
def test_nothing_sticks_out_at_any_width(page: Page, path: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path)
    page.wait_for_selector("#generate:enabled" if path == "/" else "#chart-tokens")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("path", PATHS)
def test_every_control_has_a_name_and_can_be_reached(page: Page, path: str) -> None:
    page.goto(path)
    nameless = """[...document.querySelectorAll("input, select, textarea, button, svg[role=img]")].filter((one) =>
        !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim()).map((one) => one.id)"""
    assert page.evaluate(nameless) == []
    assert page.evaluate('document.querySelectorAll(\'[tabindex]:not([tabindex="0"], [tabindex="-1"])\').length') == 0


def test_nothing_is_fetched_from_elsewhere(page: Page) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    for path in PATHS:
        page.goto(path)
        page.wait_for_load_state("networkidle")
    assert len(hosts) == 1
