"""What stands in a line for its placeholders."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from string import hexdigits

from examples.log_triage.words import APART, draw_word, words

FOLDERS = words("var srv home opt data mnt usr etc www static media api assets backup tmp export")
ENDINGS = words("html php png css json log txt tar.gz sql conf db csv")
TOPS = words("com org net io dev example de co.uk")
HOSTS = words("www mail api cdn db mx1 smtp vpn git ns2 shop")
TOOLS = (
    "/usr/bin/systemctl restart",
    "/usr/bin/apt install",
    "/usr/bin/less",
    "/bin/cat",
    "/usr/bin/journalctl -u",
    "/usr/bin/vim",
    "/bin/rm -r",
    "/usr/local/bin/sync",
    "/usr/bin/docker stop",
    "/usr/sbin/useradd",
    "/usr/bin/rsync -a",
    "/opt/bin/report",
    "/usr/bin/python3",
    "/bin/sh",
)
DISKS = ("sd@", "sd@", "sd@", "nvme#n1", "vd@")
NICS = ("eth#", "ens#", "wlan#", "enp#s#", "br#", "bond#", "eno#")

Draw = Callable[[Random, bool], str]
"""Draws a value, of words that are held out or of others."""


def fill(form: str, random: Random) -> str:
    """`form`, with a digit for each `#` and a letter from a to h for each `@`."""
    return "".join({"#": str(random.randint(0, 9)), "@": random.choice("abcdefgh")}.get(mark, mark) for mark in form)


def address(random: Random, held_out: bool) -> str:
    """An IPv4 address."""
    first = random.choice([10, 10, 172, 192, random.randint(1, 223)])
    return ".".join(str(n) for n in [first, *(random.randint(0, 255) for _ in range(3))])


def user(random: Random, held_out: bool) -> str:
    """The name of an account."""
    word, other = draw_word(random, held_out), draw_word(random, held_out)
    return random.choice([word, word, word, f"{other[0]}{word}", f"{word}{random.randint(1, 99)}", f"{word}.{other}"])


def path(random: Random, held_out: bool) -> str:
    """A path of one to three folders and a name."""
    folders = [random.choice(FOLDERS) for _ in range(random.randint(0, 2))]
    name = draw_word(random, held_out)
    if random.random() < 0.5:
        name += "." + random.choice(ENDINGS)
    return "/" + "/".join([*folders, name])


def domain(random: Random, held_out: bool) -> str:
    """A domain, with a host before it half of the time."""
    host = f"{random.choice(HOSTS)}." if random.random() < 0.5 else ""
    return f"{host}{draw_word(random, held_out)}.{random.choice(TOPS)}"


def unit(random: Random, held_out: bool) -> str:
    """The name of a service."""
    word, other = draw_word(random, held_out), draw_word(random, held_out)
    daemon = f"{word}d" if held_out or f"{word}d" not in APART else word
    return random.choice([word, daemon, f"{word}-{other}", f"{word}-{random.choice(['api', 'worker', 'agent'])}"])


def command(random: Random, held_out: bool) -> str:
    """A command with an argument."""
    return f"{random.choice(TOOLS)} {draw_word(random, held_out)}"


def database(random: Random, held_out: bool) -> str:
    """The name of a database."""
    word = draw_word(random, held_out)
    return random.choice(
        [word, word, f"{word}_{random.choice(['prod', 'test', 'stats'])}", f"{word}{random.randint(1, 9)}"]
    )


def image(random: Random, held_out: bool) -> str:
    """A container image with its tag."""
    owner, name = draw_word(random, held_out), draw_word(random, held_out)
    return f"{owner}/{name}:{random.choice(['latest', fill('#.#', random), fill('#.#.#', random)])}"


VALUES: dict[str, Draw] = {
    "user": user,
    "address": address,
    "path": path,
    "domain": domain,
    "unit": unit,
    "command": command,
    "database": database,
    "image": image,
    "disk": lambda random, held_out: fill(random.choice(DISKS), random),
    "nic": lambda random, held_out: fill(random.choice(NICS), random),
    "pid": lambda random, held_out: str(random.randint(300, 32000)),
    "port": lambda random, held_out: str(random.randint(1024, 65535)),
    "n": lambda random, held_out: str(random.randint(1, 10 ** random.randint(1, 4))),
    "hex": lambda random, held_out: "".join(random.choice(hexdigits.lower()[:16]) for _ in range(8)),
    "version": lambda random, held_out: fill("#.#.#", random),
}
