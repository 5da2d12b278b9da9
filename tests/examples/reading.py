"""Reads mails back: a mail must be phrases from end to end, and what stands in their slots is the order."""

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
PRODUCT = rf"(?:{any_of(pools.COLOURS)} )?{any_of(pools.MATERIALS)} {any_of(pools.NOUNS)}"
ITEM = rf"(?:\d+ ?x|\d+|{any_of(AMOUNTS)}) {PRODUCT}s?"
LINE = rf"(?:[-*] )?(?:\d+ (?:x |pcs )?)?{PRODUCT}(?:: \d+| \(\d+\)|, qty \d+)?"
STREET = rf"(?:\d+ {any_of(pools.STREET_WORDS)} {any_of(pools.STREET_ENDS)}|{any_of(pools.STREETS_BEFORE_NUMBERS)} \d+)"
CITY, ZIP = any_of(pools.CITIES), any_form(ZIP_FORMS)
SLOTS = {
    "name": f"{any_of(pools.FIRST_NAMES)} {any_of(pools.LAST_NAMES)}",
    "company": f"{any_of(pools.COMPANY_WORDS)} {any_of(pools.COMPANY_ENDS)}",
    "number": any_form(NUMBER_FORMS),
    "items": f"{ITEM}(?:(?:, | and also | and | plus ){ITEM})*",
    "list": f"{LINE}(?:\n{LINE})*",
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
    """An order, as the completion has it, and the phrases of the mail that says it."""

    order: dict[str, Any]
    phrases: list[str]


def read_mail(mail: str) -> Read:
    """What a mail says. Fails where it is not phrases throughout, or says something twice and differently."""
    mail = re.sub(r"[A-Za-z]+", lambda word: RIGHT.get(word[0].lower(), word[0]), mail)
    found: dict[str, Any] = {}
    used, place = [], 0
    while place < len(mail):
        matches = [(kind, phrase, match) for kind, phrase, p in PATTERNS if (match := p.match(mail, place))]
        assert matches, mail[place:]
        kind, phrase, match = max(matches, key=lambda found: found[2].end())
        for name, value in _values(kind, match.groupdict()):
            assert found.setdefault(name, value) == value
        used.append(phrase)
        place = match.end() + len(mail[match.end() :]) - len(mail[match.end() :].lstrip())
    nothing = dict.fromkeys(("name", "company", "number", "items", "address", "due", "contact"))
    return Read({**nothing, "priority": "normal", **found}, used)


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
    pattern, text = (ITEM, slots["items"]) if "items" in slots else (LINE, slots["list"])
    items = []
    for said in re.findall(pattern, text, re.IGNORECASE):
        product = re.search(PRODUCT, said, re.IGNORECASE)
        amount = re.search(r"\d+", said)
        assert product is not None
        qty = int(amount[0]) if amount else AMOUNTS[said[: product.start()].strip().lower()]
        items.append({"qty": qty, "item": product[0].lower()})
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
