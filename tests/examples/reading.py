"""Reads mails back: a mail must be phrases from end to end, and what stands in their slots is the order.

Names, products and places can be any words: the reader has no list of them, only of what companies and streets end in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

from examples.order_mail import chatter, notation, phrases, pools
from examples.order_mail.orders import NUMBER_FORMS, ZIP_FORMS


def any_of(texts: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) + ")"


def any_form(forms: Iterable[str]) -> str:
    by_length = sorted(set(forms), key=len, reverse=True)
    return "(?:" + "|".join(form.replace("#", r"\d").replace("@", "[a-z]") for form in by_length) + ")"


MONTH = "(?:" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in notation.MONTHS) + ")"
WEEKDAY = "(?:" + "|".join(f"{day[:3]}(?:{day[3:]})?" for day in notation.WEEKDAYS) + ")"
DATE = "|".join(
    [
        rf"(?:{WEEKDAY},? )?\d+ {MONTH} \d{{4}}",
        rf"{MONTH} \d+(?:st|nd|rd|th)?,? \d{{4}}",
        rf"the \d+(?:st|nd|rd|th) of {MONTH} \d{{4}}",
        rf"\d+-{MONTH}-\d{{4}}",
        r"\b\d\d?\.\d\d?\.\d{4}",
        r"\d{4}[/-]\d\d[/-]\d\d",
    ]
)
AMOUNTS = {"an": 1, "a": 1, "a pair of": 2, "half a dozen": 6, "a dozen": 12} | {
    word: i for i, word in enumerate(notation.NUMBER_WORDS, start=1)
}
WORD = r"(?!(?:and|plus)\b)[^\W\d_]{3,}"
PRODUCT = rf"(?:{WORD} )?{WORD} {WORD}(?<!s)"
"""Singular: its last word ends in no `s`."""
AMOUNT = rf"(?:\d+ ?x|\d+|{any_of(AMOUNTS)})"
ITEM, AND = rf"{AMOUNT} {PRODUCT}s?", "(?:, | and also | and | plus )"
LINES = (
    rf"- \d+ x {PRODUCT}",
    rf"\* {PRODUCT}: \d+",
    rf"\d+ pcs {PRODUCT}",
    rf"\d+ {PRODUCT}",
    rf"{PRODUCT} \(\d+\)",
    rf"{PRODUCT}, qty \d+",
)
ITEM_PARTS = re.compile(rf"(?P<amount>{AMOUNT}) (?P<product>{PRODUCT})s?", re.IGNORECASE)
LINE_PARTS = re.compile(
    rf"(?:- \d+ x |\* |\d+ pcs |\d+ )?(?P<product>{PRODUCT})(?:: \d+| \(\d+\)|, qty \d+)?", re.IGNORECASE
)
STREET = rf"(?:\d+ {WORD} {any_of(pools.STREET_ENDS)}|{WORD} \d+)"
CITY, ZIP = rf"{WORD}(?: {WORD})?", any_form(ZIP_FORMS)
SLOTS = {
    "name": f"{WORD} {WORD}",
    "company": f"{WORD} {any_of(pools.COMPANY_ENDS)}",
    "number": any_form(NUMBER_FORMS),
    "items": f"{ITEM}(?:{AND}{ITEM})*",
    "list": "(?:" + "|".join(rf"{line}(?:\n{line})*" for line in LINES) + ")",
    "address": rf"{STREET}(?:, | in |\n)(?:{CITY}(?:,? |\n){ZIP}|{ZIP} {CITY})",
    "date": DATE,
    "phone": r"(?:\+1 )?\(?\d{3}\)?[-. ]?\d{3}[-. ]?\d{4}",
    "email": r"[\w.]+@\w+\.example",
    "digits": r"\d+",
    "city": CITY,
}
SUBJECTS = [f"Subject: {subject}" for subject in chatter.SUBJECTS]
KINDS: dict[str, Iterable[str]] = {
    "name": [*phrases.NAME, "{name}"],
    "name and company": phrases.NAME_AND_COMPANY,
    "company": [*phrases.COMPANY, "{company}"],
    "items": [*phrases.ITEMS, *phrases.ITEM_LIST],
    "address": phrases.ADDRESS,
    "due": phrases.DUE,
    "number": [*phrases.NUMBER, *(f"{subject} {{number}}" for subject in SUBJECTS)],
    "contact": [*phrases.PHONE, *phrases.EMAIL],
    "high": phrases.HIGH,
    "low": phrases.LOW,
    "": [*SUBJECTS, *phrases.GREETINGS, *phrases.GOODBYES, *phrases.PICK_UP, *chatter.CHATTER, *chatter.ASIDES],
}
SLOT = re.compile(r"\\{(\w+)\\}")
PATTERNS = [
    (kind, phrase, re.compile(SLOT.sub(lambda m: f"(?P<{m[1]}>{SLOTS[m[1]]})", re.escape(phrase)), re.IGNORECASE))
    for kind, some in KINDS.items()
    for phrase in some
]
RIGHT = {wrong: right for right, wrong in chatter.MISSPELT.items()}


class Read(NamedTuple):
    """An order, as the completion has it, the phrases of the mail that says it, and its values that are of no order."""

    order: dict[str, Any]
    phrases: list[str]
    besides: list[tuple[str, str]]


def read_mail(mail: str) -> Read:
    """What a mail says. Fails where it is not phrases throughout, or says something twice and differently.

    Of the phrases that fit it takes the one that reaches furthest, and of these the one with most words of its own.
    """
    mail = re.sub(r"[^\W\d_]+", lambda word: RIGHT.get(word[0].lower(), word[0]), mail)
    found: dict[str, Any] = {}
    used, besides, place = [], list[tuple[str, str]](), 0
    while place < len(mail):
        matches = [(kind, phrase, match) for kind, phrase, p in PATTERNS if (match := p.match(mail, place))]
        assert matches, mail[place:]
        kind, phrase, match = max(matches, key=lambda found: (found[2].end(), len(found[1])))
        for name, value in _values(kind, match.groupdict()):
            assert found.setdefault(name, value) == value
        besides += match.groupdict().items() if kind == "" else ()
        used.append(phrase)
        place = match.end() + len(mail[match.end() :]) - len(mail[match.end() :].lstrip())
    nothing = dict.fromkeys(("name", "company", "number", "items", "address", "due", "contact"))
    return Read({**nothing, "priority": "normal", **found}, used, besides)


def _values(kind: str, slots: dict[str, str]) -> Iterable[tuple[str, Any]]:
    if kind in ("high", "low"):
        yield "priority", kind
    for name in ("name", "company") if kind in ("name", "company", "name and company") else ():
        if name in slots:
            yield name, _capitals(slots[name])
    if kind == "number":
        yield "number", slots["number"].upper()
    if kind == "items":
        yield "items", _items(slots)
    if kind == "address":
        street = re.match(STREET, slots["address"], re.IGNORECASE)
        assert street is not None
        rest = slots["address"][street.end() :]
        city, code = re.search(CITY, rest, re.IGNORECASE), re.search(ZIP, rest, re.IGNORECASE)
        assert city is not None and code is not None
        yield "address", {"street": _capitals(street[0]), "city": _capitals(city[0]), "zip": code[0].upper()}
    if kind == "due":
        yield "due", read_date(slots["date"]).isoformat()
    if kind == "contact":
        yield "contact", slots["email"].lower() if "email" in slots else re.sub(r"\D", "", slots["phone"])


def _items(slots: dict[str, str]) -> list[dict[str, Any]]:
    if "items" in slots:
        parts, said = ITEM_PARTS, re.split(AND, slots["items"], flags=re.IGNORECASE)
    else:
        parts, said = LINE_PARTS, slots["list"].split("\n")
    items = []
    for text in said:
        match, amount = parts.fullmatch(text), re.search(r"\d+", text)
        assert match is not None, text
        qty = int(amount[0]) if amount else AMOUNTS[match["amount"].lower()]
        items.append({"qty": qty, "item": match["product"].lower()})
    return items


def _capitals(text: str) -> str:
    return " ".join(word.capitalize() for word in text.split())


def read_date(text: str) -> date:
    """A date in any notation."""
    text = re.sub(r"(\d)(?:st|nd|rd|th)\b", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(rf"^{WEEKDAY},? (?=\d)|\bthe |\bof |,", "", text, flags=re.IGNORECASE)
    for form in ("%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y", "%d-%b-%Y", "%d.%m.%Y", "%Y/%m/%d", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise AssertionError(text)
