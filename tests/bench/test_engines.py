"""Which engines there are, what they are called, and who is installed."""

from __future__ import annotations

import sys

import pytest

from offramp.bench.engines import (
    BITS,
    OUR_PRECISIONS,
    PEERS,
    Engine,
    given_pythons,
    interpreter,
    our_engines,
    peer_engines,
    variable,
    why_absent,
)
from offramp.errors import InvalidParameter


def test_names_of_ours() -> None:
    plain, held, other = our_engines(["int8", "int8@avx2", "float32@torch"])
    assert (plain.name, plain.bits, plain.ours) == ("offramp int8", 8, True)
    assert (held.name, held.variant) == ("offramp int8@avx2", "avx2")
    assert (other.name, other.bits) == ("offramp float32@torch", 32)


def test_a_peer_stands_for_all_its_precisions() -> None:
    assert [e.name for e in peer_engines(["llama.cpp:q8_0", "transformers"])] == [
        "llama.cpp q8_0",
        "transformers float32",
    ]
    assert [e.precision for e in peer_engines(["llama.cpp"])] == ["q8_0", "q4_0", "q4_1", "f16"]


def test_a_peer_held_to_an_instruction_set() -> None:
    plain, held = peer_engines(["openvino:q8_0", "openvino:q8_0@avx2"])
    assert (plain.name, plain.environment) == ("openvino q8_0", {})
    assert (held.name, held.precision, held.bits) == ("openvino q8_0@avx2", "q8_0", 8)
    assert held.environment == {"OV_CPU_MAX_ISA": "AVX2"}
    assert our_engines(["int8@avx2"])[0].environment == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["llama"], "`--peers` cannot hold `llama`"),
        (["llama.cpp:q5"], "`--peers` cannot hold `q5`"),
        (["vllm:float32", "vllm"], "`--peers` names vllm float32 twice"),
        ([""], "`--peers` cannot hold ``"),
        (["openvino:q8_0@sse"], "openvino cannot be held to `sse`"),
        (["llama.cpp@avx2"], "llama.cpp cannot be held to `avx2`"),
    ],
)
def test_peers_that_do_not_exist(names: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        peer_engines(names)


@pytest.mark.parametrize(("name", "wrong"), [("int5", "int5"), ("int8@sse", "sse")])
def test_types_that_do_not_exist(name: str, wrong: str) -> None:
    with pytest.raises(InvalidParameter, match=f"`--dtype` cannot hold `{wrong}`") as caught:
        our_engines([name])
    assert caught.value.hint is not None and "llowed" in caught.value.hint


def test_every_engine_has_a_worker_and_a_width() -> None:
    engines = our_engines(OUR_PRECISIONS)
    engines += [Engine(peer, precision) for peer, kind in PEERS.items() for precision in kind.allowed]
    assert all(e.script.is_file() and e.bits == BITS[e.precision] for e in engines)
    assert all(set(kind.precisions) <= set(kind.allowed) for kind in PEERS.values())


def test_an_interpreter_is_as_given_or_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable("llama.cpp") == "OFFRAMP_BENCH_PYTHON_LLAMA_CPP"
    assert interpreter("llama.cpp", {}) == sys.executable
    monkeypatch.setenv("OFFRAMP_BENCH_PYTHON_LLAMA_CPP", "/from/env")
    assert interpreter("llama.cpp", {}) == "/from/env"
    assert interpreter("llama.cpp", {"llama.cpp": "/given"}) == "/given"


def test_interpreters_are_for_peers_to_be_measured() -> None:
    engines = peer_engines(["vllm", "openvino:q8_0"])
    assert given_pythons([], engines) == {}
    assert given_pythons([("vllm", "/a"), ("openvino", "/b")], engines) == {"vllm": "/a", "openvino": "/b"}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("lama", "/a")], "`--peer-python` cannot hold `lama`"),
        ([("offramp", "/a")], "`--peer-python` cannot hold `offramp`"),
        ([("llama.cpp", "/a")], "`--peer-python` names llama.cpp, which is not to be measured"),
        ([("vllm", "/a"), ("vllm", "/b")], "`--peer-python` names vllm twice"),
    ],
)
def test_interpreters_that_nobody_would_use(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        given_pythons(pairs, [*our_engines(["int8"]), *peer_engines(["vllm"])])


def test_a_peer_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "none", PEERS["vllm"]._replace(packages=("no_such_package", "nor_this")))
    reason = why_absent("none", sys.executable)
    assert reason is not None
    assert reason.startswith(f"`no_such_package` or `nor_this` is not installed for {sys.executable}")
    assert "--peer-python none=PYTHON" in reason
    monkeypatch.setitem(PEERS, "none", PEERS["vllm"]._replace(packages=("no_such_package", "json")))
    assert why_absent("none", sys.executable) is None


def test_an_interpreter_that_is_none() -> None:
    reason = why_absent("vllm", "/no/such/python")
    assert reason is not None and reason.startswith("`/no/such/python` cannot be run")
