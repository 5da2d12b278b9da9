"""`offramp serve`: its options, from wherever they come."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from offramp.cli import serve
from offramp.cli.main import COMMANDS, main
from offramp.cli.options import Options, read_options
from offramp.cli.parser import command_parser
from offramp.errors import InvalidParameter, OfframpError
from offramp.types.exits import LOSSLESS, ExitParams


def options(*words: str, environment: dict[str, str] | None = None, file: Path | None = None) -> Options:
    parser = command_parser("serve", serve.TAKES, COMMANDS["serve"], serve.EXAMPLES)
    serve.add_arguments(parser)
    return read_options(parser, parser.parse(words), environment or {}, file)


def settings(*words: str, environment: dict[str, str] | None = None) -> Any:
    read = options(*words, environment=environment)
    return serve.read_settings({**serve.DEFAULTS, **read.values}, read)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "offramp.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, "port = 1\nhost = 'a'\nmax_queue = 7\nmodel = 'here'")
    read = options("--port", "3", environment={"OFFRAMP_PORT": "2", "OFFRAMP_HOST": "b"}, file=file)
    assert read.values == {"port": 3, "host": "b", "max_queue": 7, "model": "here"}
    assert read.sources == {"port": "flag", "host": "OFFRAMP_HOST", "max_queue": str(file), "model": str(file)}


def test_values_are_read_alike_wherever_they_stand(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'max_model_len = "32k"\nkv_cache_memory = "4G"\nexits = [10, 20]\ncors_origin = ["http://a", "http://b"]\n'
        'prefix_caching = false\nallow_criteria = true\noptions = ["exits=2"]\nthreshold = 0.5',
    )
    flags = ("--max-model-len", "32k", "--kv-cache-memory", "4G", "--exits", "10,20", "--cors-origin", "http://a")
    more = ("--cors-origin", "http://b", "--no-prefix-caching", "--allow-criteria", "--option", "exits=2")
    written = options(file=file).values
    assert written == options(*flags, *more, "--threshold", "0.5").values
    assert (written["max_model_len"], written["kv_cache_memory"]) == (32_000, 4 * 2**30)
    variables = {"OFFRAMP_CORS_ORIGIN": "http://a,http://b", "OFFRAMP_PREFIX_CACHING": "off"}
    assert options(environment=variables).values == {"cors_origin": ["http://a", "http://b"], "prefix_caching": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "unknown option `prot`"),
        ("port = 'x'", "must be a whole number"),
        ("port = true", "cannot be true"),
        ("prefix_caching = 3", "must be true or false"),
        ("log_format = 'xml'", "cannot be `xml`"),
        ("kv_cache_memory = '4X'", "not a whole number"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        options(file=toml(tmp_path, text))
    assert says in caught.value.message
    if "prot" in text:
        assert caught.value.hint is not None and caught.value.hint.startswith("did you mean `port`?")


def test_a_model_may_be_given_either_way() -> None:
    assert options("here").values["model"] == options("--model", "here").values["model"] == "here"


def test_settings_of_the_http_side() -> None:
    plain = settings()
    assert (plain.model_name, plain.exit, plain.max_risk, plain.allow_criteria) == ("smollm2-135m", "off", None, True)
    strict = settings("--max-risk", "0.05", "--served-model-name", "it", "--exit", "0.02", "--root-path", "/llm/")
    assert (strict.model_name, strict.exit, strict.max_risk, strict.allow_criteria) == ("it", "0.02", 0.05, False)
    assert strict.root_path == "/llm"
    assert settings("--max-risk", "0.05", "--allow-criteria").allow_criteria
    assert (plain.shadow, settings(environment={"OFFRAMP_SHADOW": "0.01"}).shadow) == (0.0, 0.01)
    assert (plain.send_timeout, settings("--send-timeout", "600").send_timeout) == (60.0, 600.0)
    assert settings("--kv", "fill", "--min-layer", "3").exit == ExitParams(kv="fill", min_layer=3)
    assert settings("--exit", "lossless", "--max-draft", "4").exit == LOSSLESS


def test_a_model_may_have_several_names(tmp_path: Path) -> None:
    for words in (("--served-model-name", "a", "b", "a"), ("--served-model-name", "a", "--served-model-name", "b")):
        assert settings("here", *words).names == ("a", "b")
    assert settings(environment={"OFFRAMP_SERVED_MODEL_NAME": "a,b"}).names == ("a", "b")
    file = toml(tmp_path, 'served_model_name = ["a", "b"]')
    assert options(file=file).values["served_model_name"] == ["a", "b"]


def test_the_key_comes_from_a_flag_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("three\n", encoding="utf-8")
    assert settings("--api-key", "sesame").api_key == "sesame"
    assert settings(environment={"OFFRAMP_API_KEY": "two"}).api_key == "two"
    assert settings("--api-key-file", str(tmp_path / "key")).api_key == "three"
    assert "sesame" not in repr(settings("--api-key", "sesame"))


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "70000"),
        ("--max-queue", "0"),
        ("--max-risk", "2"),
        ("--drain-timeout", "nan"),
        ("--send-timeout", "0"),
        ("--root-path", "llm"),
        ("--shadow", "1.5"),
        ("--api-key", ""),
        ("--api-key", "a", "--api-key-file", "b"),
        ("--exit", "off", "--kv", "fill"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(OfframpError):
        settings(*words)


def test_print_config_shows_values_and_sources_but_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRAMP_API_KEY", "secret")
    assert main(["serve", "--port", "9000", "--print-config"]) == 0
    text = capsys.readouterr().out
    assert "port = 9000  # flag" in text.splitlines()
    assert 'api_key = "(set)"  # OFFRAMP_API_KEY' in text.splitlines()
    assert main(["serve", "--print-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["host"] == {"value": "127.0.0.1", "source": "default"}
    assert "secret" not in text + str(shown)


def test_without_its_packages_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    assert main(["serve"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: the server needs uvicorn, which is not installed"
    assert hint == "hint: pip install 'offramp[server]'"


def test_a_cache_in_bytes_becomes_one_in_tokens(tmp_path: Path) -> None:
    from offramp.models import load_model
    from tests.models.toys import save_model

    save_model(tmp_path)
    model = load_model(str(tmp_path))
    asked = {"model": str(tmp_path), "exits": [1], "max_queue": 5, "kv_dtype": "float32"}
    spec = model.spec
    per_token = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 4 + 2 * spec.hidden_size * 4
    given = serve.engine_options(model, {**asked, "kv_cache_memory": 1000 * per_token + 1})
    assert given == {**asked, "kv_tokens": 1000}
    for name in ("kv_tokens", "source_tokens"):
        with pytest.raises(InvalidParameter, match=f"`{name}` and `kv_cache_memory`"):
            serve.engine_options(model, {**asked, name: 5, "kv_cache_memory": 5})


def test_sources_take_their_part_of_a_cache_in_bytes(tmp_path: Path) -> None:
    from offramp.models import load_any
    from tests.models.t5_toys import save_t5

    save_t5(tmp_path)
    model = load_any(str(tmp_path))
    asked = {"model": str(tmp_path), "exits": [1], "kv_dtype": "float32", "max_model_len": 32, "max_source_len": 64}
    spec = model.spec
    per_source_token = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 4
    per_token = per_source_token + 2 * spec.hidden_size * 4
    memory = 100 * (32 * per_token + 64 * per_source_token)
    given = serve.engine_options(model, {**asked, "kv_cache_memory": memory})
    assert given == {**asked, "kv_tokens": 3200, "source_tokens": 6400}
