"""Recipe `router`: routers for the exits of a pack, in a second stage (CALM, Schuster et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offramp.errors import InvalidParameter
from offramp.exits.read import read_pack
from offramp.exits.write import write_pack
from offramp.files import replace_file
from offramp.tune.card import model_card
from offramp.tune.curves import curve_of
from offramp.tune.heads import Head
from offramp.tune.request import TuneRequest
from offramp.tune.router import train_router
from offramp.tune.samples import JUDGED, Sample
from offramp.tune.start import read_head, read_words
from offramp.tune.workshop import Workshop


def tune_routers(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> None:
    """Train a router for every exit of the pack in `request.out`, and write the pack with them.

    Raises:
        InvalidParameter: the pack was not made by `offramp tune`.
    """
    pack = read_pack(request.out)
    pack.check_model(shop.model.spec, shop.lm_head.norm)
    if "history" not in pack.provenance:
        raise InvalidParameter(
            f"the pack in `{request.out}` was not made by `offramp tune`",
            param="out",
            hint="use the recipe `heads,router`, and another `--out`",
        )
    tuned = None if pack.trunk is None else shop.state / "features"
    features = shop.features(samples, pack.layers, pack.trunk, tuned)
    meter = shop.meter("router", request.router.router_epochs * len(features.rows(held_out=False)) * len(pack.exits))
    specs, tensors, entries = [], {}, []
    for spec in pack.exits:
        head = read_head(pack, spec, read_words(pack, spec, shop))
        router = train_router(head, head.words, features, request.router, JUDGED, meter)
        trained = Head(replace(spec, classifier=request.router.router), {**head.tensors, **router.tensors}, head.words)
        specs.append(trained.spec)
        tensors.update(trained.arrays())
        entries.append({**curve_of(spec.layer, 0.0, router.judged).to_dict(), "loss": router.loss})
    said = {
        **pack.provenance,
        "recipes": [pack.provenance["recipes"][0], "router"],
        "router": entries,
        "settings": {**pack.provenance["settings"], **request.settings(router=True)},
    }
    if request.recipes == ("router",):
        said["router_command"] = request.command
    assert pack.base is not None, "a pack that was made by `offramp tune` names its model"
    write_pack(
        request.out,
        pack.base,
        specs,
        tensors,
        trunk=None if pack.trunk is None else pack.trunk.tensors(),
        vocabularies=pack.vocabularies,
        defaults=pack.defaults,
        provenance=said,
    )
    replace_file(request.out / "MODEL_CARD.md", model_card(said).encode())
