"""The playground, as a person uses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.serve.browser.conftest import SLOW, Sent
from tests.serve.browser.person import ended, generate, move_dial

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.serve.browser.conftest import Site

pytestmark = pytest.mark.browser

KEY = "secret"


@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_an_output_streams_in_and_every_token_says_where_it_left(playground: Page, mode: str) -> None:
    generate(playground, "abc défg", mode)
    assert "abc défg" in playground.inner_text(".tokens")
    layers = playground.eval_on_selector_all(".token", "all => all.map((one) => one.dataset.layer)")
    assert set(layers) == {"4", "8", "12"}
    assert playground.inner_text(".output .state") == "finished"
    colours = playground.evaluate(
        "[4, 8, 12].map((n) => getComputedStyle(document.querySelector(`.token[data-layer='${n}']`)).backgroundColor)"
    )
    assert len(set(colours)) == 3


@SLOW
def test_tokens_come_one_after_the_other(playground: Page) -> None:
    playground.fill("#prompt", "a slow answer to look at")
    playground.click("#generate")
    playground.wait_for_selector(".output.busy .token:nth-child(3)", state="attached")
    few = playground.locator(".token").count()
    playground.wait_for_selector(f".output.busy .token:nth-child({few + 2})", state="attached")


def test_figures_and_the_histogram_agree_with_the_tokens(playground: Page) -> None:
    generate(playground, "where did they leave")
    tokens = playground.locator(".token").count()
    counts = playground.eval_on_selector_all(
        ".depths td:last-child", "all => all.map((td) => td.textContent.split(' · ')[1])"
    )
    assert sum(map(int, counts)) == tokens
    assert float(playground.locator(".output dd").first.inner_text()) > 0
    assert "Layers: 100% run" in playground.inner_text(".account")


def test_a_token_tells_about_itself_to_mouse_and_keyboard(playground: Page) -> None:
    generate(playground, "abcdef")
    playground.hover(".token:nth-child(2)")
    said = playground.inner_text("#detail")
    assert said.startswith("Token 2 “b”: ")
    assert "· probability 61% · runner-up “<|im_start|>” (37%)." in said
    playground.focus(".tokens")
    playground.press(".tokens", "Home")
    playground.press(".tokens", "ArrowRight")
    assert playground.inner_text("#detail") == said
    playground.press(".tokens", "ArrowRight")
    assert playground.inner_text("#detail").startswith("Token 3 “c”")


def test_the_dial_is_sent_as_it_stands_and_says_what_it_promises(playground: Page, sent: Sent) -> None:
    move_dial(playground, "Home")
    seen = []
    for _ in range(4):
        seen.append((playground.inner_text("#dial-name"), playground.inner_text("#dial-promise")[:20]))
        generate(playground, "ab")
        move_dial(playground, "ArrowRight")
    assert seen == [
        ("Full depth", "All 12 layers run fo"),
        ("Lossless", "Tokens chosen at exi"),
        ("2% risk", "Of the tokens genera"),
        ("task: 5% risk", "Of the prompts, 5% o"),
    ]
    forms: Sent = [{"mode": "off"}, {"mode": "lossless"}, {"risk": 0.02}, {"risk": "task:0.05"}]
    assert [body["exit"] for body in sent] == [{**form, "trace": True} for form in forms]


def test_exits_can_be_set_by_hand(playground: Page, sent: Sent) -> None:
    playground.click("text=Exits by hand")
    playground.check("#by-hand")
    playground.fill("#threshold", "0.7")
    playground.select_option("#kv", "recompute")
    assert playground.is_disabled("#dial")
    generate(playground, "ab")
    assert sent[0]["exit"] == {
        "criterion": "max_prob", "threshold": 0.7, "min_layer": 0, "kv": "recompute", "max_draft": 4, "trace": True,
    }  # fmt: skip


def test_a_fixed_exit_is_chosen_among_those_there_are(playground: Page, sent: Sent) -> None:
    playground.click("text=Exits by hand")
    playground.check("#by-hand")
    playground.select_option("#criterion", "fixed")
    assert playground.is_hidden("#threshold")
    assert playground.locator("#fixed-layer option").all_inner_texts() == ["4", "8"]
    playground.select_option("#fixed-layer", "8")
    generate(playground, "ab")
    assert (sent[0]["exit"]["criterion"], sent[0]["exit"]["options"]) == ("fixed", {"layer": 8})
    assert playground.inner_text(".output h2") == "fixed at layer 8, fill"
    assert playground.is_hidden("#error")


def test_layers_are_written_under_words_that_left_early(playground: Page) -> None:
    generate(playground, "abc defg")
    early = playground.eval_on_selector_all(
        ".token", "all => all.filter((one) => one.dataset.layer < 12).map((one) => one.dataset.layer)"
    )
    written = playground.eval_on_selector_all(".word[data-layer]", "all => all.map((one) => one.dataset.layer)")
    assert written == early != []
    assert playground.eval_on_selector_all(".word", "all => all.filter((one) => /^\\s/.test(one.textContent))") == []


def test_a_wrong_number_is_pointed_at_and_not_sent(playground: Page, sent: Sent) -> None:
    playground.click("text=Sampling and display")
    playground.fill("#max-tokens", "0")
    playground.click("#generate")
    assert playground.evaluate("document.querySelector('#max-tokens:invalid') === document.activeElement")
    assert sent == []


def test_a_wrong_number_in_a_closed_section_is_shown(playground: Page, sent: Sent) -> None:
    playground.click("text=Sampling and display")
    playground.fill("#max-tokens", "")
    playground.click("text=Sampling and display")
    playground.fill("#prompt", "never sent")
    playground.click("#generate")
    playground.wait_for_selector("#max-tokens:visible:focus")
    assert not sent


def test_what_a_fixed_exit_hides_cannot_be_wrong(playground: Page, sent: Sent) -> None:
    playground.click("text=Exits by hand")
    playground.check("#by-hand")
    playground.fill("#threshold", "2")
    playground.select_option("#criterion", "fixed")
    generate(playground, "sent")
    assert sent[-1]["exit"]["criterion"] == "fixed"


def test_a_race_reads_the_prompt_then_runs_full_depth_and_the_dial(playground: Page, sent: Sent) -> None:
    playground.fill("#prompt", "who is faster")
    playground.click("#race")
    playground.wait_for_selector(".verdict:visible")
    assert playground.locator(".lanes > .output h2").all_inner_texts() == ["Full depth", "Lossless"]
    assert [body["exit"] for body in sent] == [
        "off", {"mode": "off", "trace": True}, {"mode": "lossless", "trace": True},
    ]  # fmt: skip
    assert sent[0]["max_tokens"] == 1
    said = playground.inner_text(".verdict")
    assert "times the speed of full depth" in said and "Both outputs are equal" in said
    full, dial = playground.locator(".tokens").all_inner_texts()
    assert full == dial


@SLOW
def test_both_lanes_can_run_at_once(playground: Page) -> None:
    playground.click("text=Sampling and display")
    playground.check("#together")
    playground.fill("#max-tokens", "10")
    playground.fill("#prompt", "side by side")
    playground.click("#race")
    playground.wait_for_selector(".output.busy ~ .output.busy")
    playground.wait_for_selector(".verdict:visible")


def test_lanes_that_draw_draw_with_one_seed(playground: Page, sent: Sent) -> None:
    playground.click("text=Sampling and display")
    playground.fill("#temperature", "0.75")
    playground.fill("#prompt", "by chance")
    playground.click("#race")
    playground.wait_for_selector(".verdict:visible")
    seeds = {body["seed"] for body in sent}
    assert len(seeds) == 1 and seeds != {None}
    generate(playground, "by chance")
    assert "seed" not in sent[-1]


def test_full_depth_has_nothing_to_race_against(playground: Page) -> None:
    move_dial(playground, "Home")
    assert playground.is_disabled("#race") and playground.is_enabled("#generate")


@SLOW
def test_stop_ends_the_output_and_the_engine_s_work(playground: Page, site: Site) -> None:
    playground.fill("#prompt", "this would take long")
    playground.click("#generate")
    playground.wait_for_selector(".output.busy .token")
    playground.click("#stop")
    playground.wait_for_selector("#generate:enabled")
    assert playground.inner_text(".output .state") == "stopped"
    assert playground.is_hidden("#error")
    while site.do(site.client.stats()).running:
        playground.wait_for_timeout(50)


@pytest.mark.parametrize("site", [{"template": None}], indirect=True)
def test_a_model_without_a_chat_template_takes_prompts(playground: Page) -> None:
    assert playground.is_disabled("#chat-mode") and playground.is_checked("#prompt-mode")
    playground.fill("#prompt", "ab")
    playground.click("#generate")
    ended(playground)
    assert playground.is_hidden("#error") and playground.locator(".token").count() > 0


@pytest.mark.parametrize("site", [{"delay": 0.2, "room": (1, 0)}], indirect=True)
def test_a_busy_server_is_an_error_that_says_when_to_try_again(playground: Page, site: Site) -> None:
    other = {"prompt": "somebody else", "max_tokens": 500, "stream": True}
    headers = {"Content-Type": "application/json"}
    sending = "(options) => fetch('v1/completions', options).then(() => 0)"
    playground.evaluate(sending, {"method": "POST", "headers": headers, "body": json.dumps(other)})
    generate(playground, "me too")
    said = playground.inner_text("#error")
    assert "wait already" in said and "Try again in 1 s." in said
    assert playground.inner_text(".output .state") == "failed"


@SLOW
def test_an_engine_that_dies_is_an_error_and_the_next_try_clears_it(playground: Page, site: Site) -> None:
    playground.fill("#prompt", "a long story")
    playground.click("#generate")
    playground.wait_for_selector(".output.busy .token")
    site.do(site.client.crash())
    ended(playground)
    assert "process ended" in playground.inner_text("#error")
    assert playground.locator(".token").count() > 0
    site.do(site.client.wait_ready())
    generate(playground, "ab")
    assert playground.is_hidden("#error")


def test_a_server_that_is_gone_is_an_error_too(playground: Page) -> None:
    playground.route("**/v1/**", lambda route: route.abort())
    generate(playground, "ab")
    assert "The server does not answer." in playground.inner_text("#error")


@pytest.mark.parametrize("site", [{"api_key": KEY}], indirect=True)
def test_the_key_is_asked_for_sent_and_kept_nowhere(playground: Page) -> None:
    assert "needs an API key" in playground.inner_text("#state")
    generate(playground, "ab")
    assert "an API key is needed" in playground.inner_text("#error")
    playground.fill("#key:focus", KEY)
    playground.press("#key", "Enter")
    generate(playground, "ab")
    assert playground.is_hidden("#error") and playground.locator(".token").count() > 0
    assert KEY not in playground.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert KEY not in playground.url


def test_what_a_model_says_is_never_html(playground: Page) -> None:
    evil = "<img src=x onerror=alert(1)><b>bold</b><script>alert(2)</script>"
    generate(playground, evil, "chat")
    assert evil in (playground.text_content(".tokens") or "")
    assert playground.locator("#turns :is(img, b, script)").count() == 0
    playground.focus(".tokens")
    assert playground.locator("#detail *").count() == 0
