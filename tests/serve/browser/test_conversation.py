"""Conversations on the playground: what is sent with a message, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serve.browser.conftest import SLOW, Sent
from tests.serve.browser.person import ended, generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_a_conversation_is_sent_whole_until_a_new_one_begins(playground: Page, sent: Sent) -> None:
    playground.fill("#system", "Be brief.")
    generate(playground, "one", "chat")
    generate(playground, "two", "chat")
    roles = [message["role"] for message in sent[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert playground.locator(".turn").count() == 2
    playground.click("#clear")
    generate(playground, "three", "chat")
    assert [message["role"] for message in sent[2]["messages"]] == ["system", "user"]


@SLOW
def test_a_new_conversation_begins_with_nothing_even_while_an_answer_comes(playground: Page, sent: Sent) -> None:
    generate(playground, "first", "chat")
    playground.fill("#prompt", "second and long enough to be cut off")
    playground.click("#generate")
    playground.wait_for_selector(".output.busy .token")
    playground.click("#clear")
    ended(playground)
    generate(playground, "third", "chat")
    assert [message["content"] for message in sent[-1]["messages"]] == ["third"]


def test_what_left_the_page_is_not_sent(playground: Page, sent: Sent) -> None:
    generate(playground, "first", "chat")
    generate(playground, "alone")
    generate(playground, "second", "chat")
    assert [message["content"] for message in sent[-1]["messages"]] == ["second"]


@SLOW
def test_what_is_written_while_an_answer_comes_stays(playground: Page) -> None:
    playground.fill("#prompt", "one two three")
    playground.click("#generate")
    playground.wait_for_selector(".output.busy .token")
    playground.fill("#prompt", "the next")
    ended(playground)
    assert playground.input_value("#prompt") == "the next"


def test_the_arrow_up_brings_the_last_message_back(playground: Page) -> None:
    generate(playground, "say it again", "chat")
    assert playground.input_value("#prompt") == ""
    playground.press("#prompt", "ArrowUp")
    assert playground.input_value("#prompt") == "say it again"
