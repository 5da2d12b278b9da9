"""What a person does on the playground."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def generate(page: Page, prompt: str, mode: str = "prompt") -> None:
    """Send, and wait until it has ended."""
    page.check(f"[name=mode][value={mode}]", force=True)
    page.fill("#prompt", prompt)
    page.click("#generate")
    ended(page)


def ended(page: Page) -> None:
    page.wait_for_selector("#stop:disabled")


def move_dial(page: Page, key: str, times: int = 1) -> None:
    for _ in range(times):
        page.press("#dial", key)
