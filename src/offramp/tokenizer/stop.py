"""Stop strings, found across token boundaries."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a stream of text off before the first stop string.

    The first is the one that is complete first, the longest of those that end together: the result does not depend
    on how the text was cut into pieces. Text that may be the start of a stop string is held back.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = sorted(stop, key=len, reverse=True)
        self._longest = max(map(len, stop), default=0)
        self._held = ""
        self._matched: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """(text that may be emitted, the stop string if one was found). After a match nothing more is emitted."""
        if self._matched is not None:
            return "", self._matched
        if not self._stop:
            return text, None
        text = self._held + text
        ends = [(text.index(stop) + len(stop), stop) for stop in self._stop if stop in text]
        if ends:
            end, self._matched = min(ends, key=lambda found: found[0])
            self._held = ""
            return text[: end - len(self._matched)], self._matched
        hold = self._start_of_stop(text)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold], None

    def flush(self) -> str:
        """The text still held back; for when the stream ends without a match."""
        held, self._held = self._held, ""
        return held

    def _start_of_stop(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0
