"""A tuning run: data, then heads or trunk, then routers, and the exit pack that comes of them."""

from __future__ import annotations

import importlib.util
from typing import Any

from offramp.errors import InvalidParameter, MissingDependency
from offramp.exits.pack import check_layers
from offramp.exits.read import read_pack
from offramp.models import Progress, load_model
from offramp.tune.begin import begin
from offramp.tune.report import Update
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample
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
    from offramp.tune.calm_recipe import tune_calm
    from offramp.tune.heads_recipe import tune_heads
    from offramp.tune.layerskip_recipe import tune_trunk
    from offramp.tune.router_recipe import tune_routers

    if request.threads is not None:
        set_threads(request.threads)
    if request.recipes == ("calm",):
        return tune_calm(request, update)
    model = load_model(request.model, download)
    if isinstance(request.exits, tuple):
        check_layers(request.exits, model.spec.num_layers)
    shop = Workshop(model, request, update)
    if request.recipes != ("router",):
        begin(request.out, shop.state, {**shop.identity, **request.settings(router=False)}, request.resume)
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


def _enough(samples: list[Sample]) -> list[Sample]:
    if not 0 < sum(s.held_out for s in samples) < len(samples):
        raise InvalidParameter(
            f"{len(samples)} sequences are too few to train on and to hold some out",
            param="tokens",
            hint="raise `--tokens`, or give more data",
        )
    return samples
