"""A tuning run: data, then heads or trunk, then routers, and the exit pack that comes of them."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from offramp.errors import InvalidParameter, MissingDependency
from offramp.exits.pack import check_layers
from offramp.exits.read import read_pack
from offramp.exits.write import replace_file
from offramp.models import Progress, load_model
from offramp.tune.report import Update
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample, check_same
from offramp.tune.workshop import Workshop


def tune(request: TuneRequest, update: Update, download: Progress | None = None) -> dict[str, Any]:
    """Carry out a request; returns the provenance of the exit pack that was written.

    Args:
        update: told how far stages have come.
        download: told about downloads.

    Raises:
        MissingDependency: torch is not installed.
        InvalidParameter: `request.out` holds another run, or none where one is needed; or too few data.
        OfframpError: the model or the data cannot be had.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency("tuning needs torch, which is not installed", hint="pip install 'offramp[torch]'")
    from offramp.executors.torch import set_threads
    from offramp.tune.heads_recipe import tune_heads
    from offramp.tune.layerskip_recipe import tune_trunk
    from offramp.tune.router_recipe import tune_routers

    if request.threads is not None:
        set_threads(request.threads)
    model = load_model(request.model, download)
    if isinstance(request.exits, tuple):
        check_layers(request.exits, model.spec.num_layers)
    shop = Workshop(model, request, update)
    if request.recipes != ("router",):
        _start(request, shop)
    elif not (request.out / "exits.json").is_file():
        raise InvalidParameter(
            f"`{request.out}` holds no exit pack to train routers for",
            param="recipe",
            hint="use the recipe `heads,router`",
        )
    samples = _enough(shop.samples())
    if request.trunk_is_frozen:
        tune_heads(request, shop, samples)
    if "layerskip" in request.recipes:
        tune_trunk(request, shop, samples)
    if "router" in request.recipes:
        tune_routers(request, shop, samples)
    return dict(read_pack(request.out).provenance)


def _start(request: TuneRequest, shop: Workshop) -> None:
    """Make `out`, or check that it holds this very run and that it is to go on."""
    path = shop.state / "settings.json"
    settings = {**shop.identity, **request.settings(router=False)}
    if path.is_file():
        if not request.resume:
            raise InvalidParameter(
                f"`{request.out}` already holds a run", param="out", hint="go on with `--resume`, or choose another"
            )
        check_same(json.loads(path.read_bytes()), settings, f"`{request.out}`")
    elif request.resume:
        raise InvalidParameter(
            f"`{request.out}` holds no run to go on with", param="resume", hint="leave out `--resume`"
        )
    shop.state.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(settings).encode())


def _enough(samples: list[Sample]) -> list[Sample]:
    if not 0 < sum(s.held_out for s in samples) < len(samples):
        raise InvalidParameter(
            f"{len(samples)} sequences are too few to train on and to hold some out",
            param="tokens",
            hint="raise `--tokens`, or give more data",
        )
    return samples
