"""How people write values down: numbers, lists, dates, addresses, telephone numbers.

Notations are for training and for testing alike: only what is written in them is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from random import Random
from typing import TYPE_CHECKING

from examples.order_mail.pools import words

if TYPE_CHECKING:
    from examples.order_mail.orders import Address, Item

MONTHS = words("January February March April May June July August September October November December")
WEEKDAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

NUMBER_WORDS = words("one two three four five six seven eight nine ten eleven twelve")

LISTS = (
    "- {qty} x {item}",
    "* {item}: {qty}",
    "{qty} {item}",
    "{item} ({qty})",
    "{item}, qty {qty}",
    "{qty} pcs {item}",
)


def say_items(items: Sequence[Item], random: Random) -> str:
    """`3 brass hooks, a dozen oak trays and an iron lamp`."""
    said = [_say_item(item, random) for item in items]
    last = random.choice([" and ", ", ", " plus ", " and also "])
    return last.join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]


def say_list(items: Sequence[Item], random: Random) -> str:
    """A line an item, all in the same form."""
    form = random.choice(LISTS)
    return "\n".join(form.format(qty=item.qty, item=item.item) for item in items)


def say_date(day: date, random: Random) -> str:
    """One of a dozen notations; days come before months unless the month is a word or the year comes first."""
    month, weekday, ordinal = MONTHS[day.month - 1], WEEKDAYS[day.weekday()], _ordinal(day.day)
    return random.choice(
        [
            f"{day.day} {month} {day.year}",
            f"{month} {day.day}, {day.year}",
            f"{month} {ordinal}, {day.year}",
            f"the {ordinal} of {month} {day.year}",
            f"{weekday}, {day.day} {month} {day.year}",
            f"{weekday[:3]} {day.day} {month[:3]} {day.year}",
            f"{month[:3]} {day.day} {day.year}",
            f"{day.day}-{month[:3]}-{day.year}",
            f"{day.day:02}.{day.month:02}.{day.year}",
            f"{day.day}.{day.month}.{day.year}",
            f"{day.year}/{day.month:02}/{day.day:02}",
            day.isoformat(),
        ]
    )


def say_address(address: Address, random: Random) -> str:
    """On a line, or on a line each."""
    return random.choice(
        [
            "{street}, {city} {zip}",
            "{street}, {zip} {city}",
            "{street}, {city}, {zip}",
            "{street} in {zip} {city}",
            "{street}\n{city}\n{zip}",
            "{street}\n{zip} {city}",
        ]
    ).format(street=address.street, city=address.city, zip=address.zip)


def say_phone(digits: str, random: Random) -> str:
    """Ten digits, or eleven with the country's 1, in groups."""
    country, area, exchange, line = digits[:-10], digits[-10:-7], digits[-7:-4], digits[-4:]
    number = random.choice(
        [
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"{area} {exchange} {line}",
            f"{area}{exchange}{line}",
        ]
    )
    return f"+{country} {number}" if country else number


def _say_item(item: Item, random: Random) -> str:
    forms = [f"{item.qty} {item.item}" + "s" * (item.qty > 1), f"{item.qty} x {item.item}", f"{item.qty}x {item.item}"]
    if item.qty <= len(NUMBER_WORDS):
        forms += [f"{NUMBER_WORDS[item.qty - 1]} {item.item}" + "s" * (item.qty > 1)] * 2
    if item.qty == 1:
        forms.append(f"{'an' if item.item[0] in 'aeiou' else 'a'} {item.item}")
    more = {2: "a pair of", 6: "half a dozen", 12: "a dozen"}
    if item.qty in more:
        forms.append(f"{more[item.qty]} {item.item}s")
    return random.choice(forms)


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
