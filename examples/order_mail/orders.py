"""An order, drawn at random, and the JSON that stands for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from random import Random
from typing import TypeVar

from examples.order_mail import pools
from examples.order_mail.inventing import (
    draw,
    invent_brand,
    invent_city,
    invent_name,
    invent_noun,
    invent_street,
    invent_word,
)
from examples.order_mail.pools import FOURTH, part

T = TypeVar("T")

FIRST_DAY, DAYS = date(2026, 1, 1), 730

NUMBER_FORMS = ("PO-#####", "#####", "ORD-####", "@##-###", "##/####", "PO####@")
"""Of order numbers: `#` is a digit, `@` a letter."""

ZIP_FORMS = ("#####", "#####", "@@# #@@", "#### @@")


@dataclass(frozen=True, slots=True)
class Item:
    """So many of a product, whose name is lower-case and singular."""

    qty: int
    item: str


@dataclass(frozen=True, slots=True)
class Address:
    """Where an order goes."""

    street: str
    city: str
    zip: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a mail says, in normal form; None is what it does not say.

    Args:
        name: of the person who writes.
        due: in ISO 8601.
        contact: the digits of a phone number, or a mail address.
        priority: `high` or `low` where the mail says so, else `normal`.
    """

    name: str
    company: str | None
    number: str | None
    items: tuple[Item, ...]
    address: Address | None
    due: str | None
    contact: str | None
    priority: str

    @property
    def completion(self) -> str:
        """Compact JSON behind a space."""
        return " " + json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def draw_order(random: Random, held_out: bool) -> Order:
    """An order of values that training sees, or of those that it does not."""
    first, last = draw_name(random, held_out)
    word = draw(pools.COMPANY_WORDS, invent_brand, random, held_out)
    company = f"{word} {random.choice(pools.COMPANY_ENDS)}"
    return Order(
        name=f"{first} {last}",
        company=_perhaps(random, 0.5, company),
        number=_perhaps(random, 0.55, fill_in(random.choice(NUMBER_FORMS), random)),
        items=_draw_items(random, held_out),
        address=_perhaps(random, 0.7, _draw_address(random, held_out)),
        due=_perhaps(random, 0.7, draw_date(random, held_out).isoformat()),
        contact=_perhaps(random, 0.45, _draw_contact(random, first, last, held_out)),
        priority=random.choice(["high", "normal", "normal", "low"]),
    )


def draw_name(random: Random, held_out: bool) -> tuple[str, str]:
    """A first and a last name."""
    first = draw(pools.FIRST_NAMES, invent_name, random, held_out)
    return first, draw(pools.LAST_NAMES, invent_name, random, held_out)


def draw_city(random: Random, held_out: bool) -> str:
    """The name of a city."""
    return draw(pools.CITIES, invent_city, random, held_out)


def draw_date(random: Random, held_out: bool) -> date:
    """A day; every fourth is held out."""
    number = random.choice(part(range(DAYS), held_out))
    return FIRST_DAY + timedelta(days=number)


def is_held_out(day: date) -> bool:
    """Whether training sees this day in no mail."""
    return (1 + (day - FIRST_DAY).days) % FOURTH == 0


def fill_in(form: str, random: Random) -> str:
    """A form with its `#` and `@` drawn: digits, of which the first is not 0, and letters that no digit looks like."""
    drawn = {"#": "0123456789", "@": "ABCDEFGHJKLMNPRSTUVWXYZ"}
    text = "".join(random.choice(drawn[sign]) if sign in drawn else sign for sign in form)
    return text if text[0] != "0" else "1" + text[1:]


def _draw_items(random: Random, held_out: bool) -> tuple[Item, ...]:
    """One to three different products."""
    items: dict[str, Item] = {}
    for _ in range(random.choice([1, 2, 2, 3])):
        material = draw(pools.MATERIALS, invent_word, random, held_out)
        words = [material, draw(pools.NOUNS, invent_noun, random, held_out)]
        if random.random() < 0.3:
            words.insert(0, draw(pools.COLOURS, invent_word, random, held_out))
        name, qty = " ".join(words), random.choice([1, 2, random.randint(3, 12), random.randint(13, 250)])
        items[name] = Item(qty, name)
    return tuple(items.values())


def _draw_address(random: Random, held_out: bool) -> Address:
    number = random.randint(1, 299)
    word = draw(pools.STREET_WORDS, invent_brand, random, held_out)
    street = f"{number} {word} {random.choice(pools.STREET_ENDS)}"
    if random.random() < 0.2:
        street = f"{draw(pools.STREETS_BEFORE_NUMBERS, invent_street, random, held_out)} {number}"
    return Address(street, draw_city(random, held_out), fill_in(random.choice(ZIP_FORMS), random))


def _draw_contact(random: Random, first: str, last: str, held_out: bool) -> str:
    """Half of them phone numbers, some with the country's 1; the others made of the name."""
    if random.random() < 0.5:
        return random.choice(["", "", "1"]) + str(random.randint(2, 9)) + fill_in("##555####", random)
    user = random.choice([f"{first}.{last}", f"{first[0]}.{last}", f"{last}{random.randint(1, 99)}", first])
    return f"{user}@{draw(pools.MAIL_DOMAINS, invent_word, random, held_out)}.example".lower()


def _perhaps(random: Random, chance: float, value: T) -> T | None:
    return value if random.random() < chance else None
