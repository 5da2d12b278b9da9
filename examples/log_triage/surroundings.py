"""What stands around the words of an event: the program that says them, and what a collector of logs writes first.

The same words come from many programs. Half of the lines are as `kinds.txt` has them; the others have a program that
nobody has heard of, a stamp, or both, so that a model reads the words and not the name.
"""

from __future__ import annotations

import re
from random import Random

from examples.log_triage.words import draw_word, words

PLAIN = 0.5
"""The share of lines that stay as they are."""

PROGRAM = re.compile(r"^(?:[\w./-]+\[(?:\{pid\}|1)\]|[a-z][\w./-]*): ")
"""How a wording begins that says which program it is from."""

ROLES = words("agent api daemon exporter gateway proxy server worker")
MONTHS = words("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")


def surround(wording: str, random: Random, held_out: bool) -> str:
    """A wording in other surroundings, or as it is. Its own placeholders stay, except for a program's `{pid}`."""
    if random.random() < PLAIN:
        return wording
    renamed, stamped = random.choice([(True, False), (True, False), (True, True), (False, True)])
    if renamed:
        wording = f"{program(random, held_out)}: {PROGRAM.sub('', wording)}"
    return stamp(random, held_out) + wording if stamped else wording


def program(random: Random, held_out: bool) -> str:
    """The name of a program, with the number of its process half of the time."""
    word, other = draw_word(random, held_out), draw_word(random, held_out)
    name = random.choice([word, word, f"{word}-{other}", f"{word}-{random.choice(ROLES)}"])
    return name + random.choice(["", "[{n}]"])


def stamp(random: Random, held_out: bool) -> str:
    """When and on which host, as syslog, ISO 8601, the kernel and others write it, with a space behind it."""
    month, day, host = random.randint(1, 12), random.randint(1, 28), draw_word(random, held_out)
    time = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}"
    return random.choice(
        [
            f"{MONTHS[month - 1]} {day:2} {time} {host} ",
            f"<{random.randint(0, 191)}>{MONTHS[month - 1]} {day:2} {time} {host} ",
            f"2026-{month:02}-{day:02}T{time}Z {host} ",
            f"{time} ",
            f"[{random.randint(1, 99999)}.{random.randint(0, 999):03}] ",
        ]
    )
