"""An order said in a mail: phrases in some order, values in some notation, now and then in a hurry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from random import Random

from examples.order_mail import chatter, phrases
from examples.order_mail.notation import say_address, say_date, say_items, say_list, say_phone
from examples.order_mail.orders import Order, draw_city, draw_date, draw_name, fill_in
from examples.order_mail.pools import part

HURRIED, LOWER = 0.3, 0.4
"""The share of mails with misspelt words, and of these the share in lower case throughout."""

WORD = re.compile(r"(?<!\{)\b[A-Za-z]+\b(?!\})")
"""A word of a phrase that is not the name of a slot."""


class Writer:
    """Says things: chooses among phrases that training sees, or does not, and misspells some words in a hurry."""

    def __init__(self, random: Random, held_out: bool) -> None:
        self.random, self.held_out = random, held_out
        self.hurried = random.random() < HURRIED

    def say(self, some: Sequence[str], /, **values: str) -> str:
        """One of some phrases, with its slots filled in."""
        return self.tell(self.random.choice(part(some, self.held_out)), **values)

    def tell(self, phrase: str, /, **values: str) -> str:
        """This phrase, with its slots filled in."""
        return (misspell(phrase, self.random) if self.hurried else phrase).format(**values)


def write_mail(order: Order, random: Random, held_out: bool) -> str:
    """A mail that says this order and nothing else of its kind, in phrases that training sees, or does not."""
    writer = Writer(random, held_out)
    say = writer.say
    name_at = random.choice(["opening", "signature", "both"])
    company_at = None if order.company is None else random.choice(["opening", "body", "signature"])
    in_subject = order.number is not None and random.random() < 0.25
    before, after = [], []
    if in_subject or random.random() < 0.3:
        before.append("Subject: " + say(chatter.SUBJECTS) + (f" {order.number}" if in_subject else ""))
    if random.random() < 0.8:
        before.append(say(phrases.GREETINGS))
    if company_at == "opening":
        before.append(say(phrases.NAME_AND_COMPANY, name=order.name, company=order.company or ""))
    elif name_at != "signature":
        before.append(say(phrases.NAME, name=order.name))
    if name_at != "opening" or company_at == "signature":
        after += [say(phrases.GOODBYES), order.name]
    if company_at == "signature":
        after.append(order.company or "")
    body = _facts(order, writer, in_subject) + _besides(writer)
    if company_at == "body":
        body.append(say(phrases.COMPANY, company=order.company or ""))
    random.shuffle(body)
    text = "\n".join([*before, _joined(body, random), *after])
    return text.lower() if writer.hurried and random.random() < LOWER else text


def misspell(phrase: str, random: Random) -> str:
    """A phrase in which about half of the words that can be misspelt are."""

    def hurry(word: re.Match[str]) -> str:
        wrong = chatter.MISSPELT.get(word[0].lower())
        if wrong is None or random.random() < 0.5:
            return word[0]
        return wrong.capitalize() if word[0][0].isupper() else wrong

    return WORD.sub(hurry, phrase)


def _facts(order: Order, writer: Writer, in_subject: bool) -> list[str]:
    """A sentence for everything that the order says besides who orders."""
    say, random = writer.say, writer.random
    if random.random() < 0.6:
        facts = [say(phrases.ITEMS, items=say_items(order.items, random))]
    else:
        facts = [say(phrases.ITEM_LIST, list=say_list(order.items, random))]
    if order.number is not None and not in_subject:
        facts.append(say(phrases.NUMBER, number=order.number))
    if order.address is not None:
        facts.append(say(phrases.ADDRESS, address=say_address(order.address, random)))
    elif random.random() < 0.5:
        facts.append(say(phrases.PICK_UP))
    if order.due is not None:
        facts.append(say(phrases.DUE, date=say_date(date.fromisoformat(order.due), random)))
    if order.contact is not None and "@" in order.contact:
        facts.append(say(phrases.EMAIL, email=order.contact))
    elif order.contact is not None:
        facts.append(say(phrases.PHONE, phone=say_phone(order.contact, random)))
    if order.priority != "normal":
        facts.append(say(phrases.HIGH if order.priority == "high" else phrases.LOW))
    return facts


def _besides(writer: Writer) -> list[str]:
    """One or two sentences about nothing, and perhaps one with a value that is of no order."""
    random, held_out = writer.random, writer.held_out
    chosen = random.sample(part(chatter.CHATTER, held_out), random.choice([1, 1, 2]))
    sentences = [writer.tell(sentence) for sentence in chosen]
    if random.random() < 0.4:
        values = {
            "name": " ".join(draw_name(random, held_out)),
            "date": say_date(draw_date(random, held_out), random),
            "city": draw_city(random, held_out),
            "digits": fill_in("#" * random.randint(2, 5), random),
        }
        sentences.append(writer.say(chatter.ASIDES, **values))
    return sentences


def _joined(sentences: Sequence[str], random: Random) -> str:
    """Sentences one after the other, or a line each; what has lines of its own or no stop ends its line."""
    by_line = random.random() < 0.4
    text = sentences[0]
    for before, after in pairwise(sentences):
        ends = "\n" in before or before[-1] not in ".!?"
        text += ("\n" if by_line or ends or random.random() < 0.15 else " ") + after
    return text
