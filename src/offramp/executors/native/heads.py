"""Exit heads, and the model's own, as the C++ core takes them: mappings by the names of `Head` in `csrc/head.h`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.executors.native.layout import PackedMatrix, WeightType, take_columns
from offramp.executors.native.pack import Floats, as_floats, pack_array, pack_pairs
from offramp.executors.native.weights import NativeWeights
from offramp.exits.pack import ExitPack, ExitSpec

Head = Mapping[str, Any]


def top_head(weights: NativeWeights) -> Head:
    """The model's own final norm and LM head."""
    return {"matrix": weights.lm_head, "norm": weights.final_norm, "temperature": 1 / weights.head_scale}


def exit_head(spec: ExitSpec, pack: ExitPack, weights: NativeWeights) -> Head:
    """The head of one exit of `pack`, which shares what it does not own with the model.

    Its matrices have the type of the LM head.

    Raises:
        WeightsError: a tensor of the pack cannot be read.
    """
    kind = weights.lm_head.type

    def get(name: str) -> Floats:
        return as_floats(pack.tensor(spec.layer, name))

    # A head that shares the LM head's scale s has it in its temperature: (s z + b) / t = (z + b / s) / (t / s).
    scale = weights.head_scale if spec.head == "shared" else 1.0
    ids = np.zeros(0, dtype=np.int32)
    if spec.vocabulary is not None:
        ids = np.array(pack.vocabularies[spec.vocabulary], dtype=np.int32)
    head: dict[str, Any] = {
        "matrix": _matrix(spec, weights.lm_head, ids, kind, get),
        "ids": ids,
        "other": spec.other,
        "other_bias": float(get("other.bias")[0]) / scale if spec.other else 0.0,
        "temperature": spec.temperature / scale,
        "adapter": spec.adapter,
        "classifier": spec.classifier,
    }
    if spec.norm != "none":
        head["norm"] = get("norm.weight") if spec.norm == "own" else weights.final_norm
    return {
        **head,
        **_past(spec.past, kind, get),
        **_adapter(spec.adapter, kind, get),
        **_classifier(spec.classifier, kind, get),
    }


def _matrix(
    spec: ExitSpec, lm_head: PackedMatrix, ids: npt.NDArray[np.int32], kind: WeightType, get: Any
) -> PackedMatrix:
    """The outputs of the head, and last the one for other tokens; columns of the LM head are taken as they are."""
    matrix, columns = lm_head, range(lm_head.n)
    if spec.head == "own":
        matrix = pack_array(kind, get("head.weight"))
        columns = range(matrix.n)
    elif spec.vocabulary is not None:
        columns = ids.tolist()
    if spec.other:
        return take_columns((matrix, columns), (pack_array(kind, get("other.weight")), range(1)))
    return matrix if len(columns) == matrix.n else take_columns((matrix, columns))


def _past(past: str, kind: WeightType, get: Any) -> dict[str, Any]:
    if past == "none":
        return {}
    return {
        "past_weight": pack_array(kind, get("past.weight")),
        "past_hidden_norm": get("past.hidden_norm.weight"),
        "past_state_norm": get("past.state_norm.weight"),
    }


def _adapter(adapter: str, kind: WeightType, get: Any) -> dict[str, Any]:
    if adapter == "linear":
        return {"adapter_weight": pack_array(kind, get("adapter.weight")), "adapter_bias": get("adapter.bias")}
    if adapter == "mlp":
        gate, up = get("adapter.gate_proj.weight"), get("adapter.up_proj.weight")
        return {
            "adapter_norm": get("adapter.norm.weight"),
            "adapter_gate_up": pack_pairs(kind, gate, up),
            "adapter_down": pack_array(kind, get("adapter.down_proj.weight")),
        }
    return {}


def _classifier(classifier: str, kind: WeightType, get: Any) -> dict[str, Any]:
    if classifier == "linear":
        weight, bias = get("classifier.weight"), get("classifier.bias")
        return {"classifier_weight": weight.reshape(-1), "classifier_bias": float(bias[0])}
    if classifier == "mlp":
        return {
            "classifier_down": pack_array(kind, get("classifier.down.weight")),
            "classifier_down_bias": get("classifier.down.bias"),
            "classifier_up": get("classifier.up.weight").reshape(-1),
            "classifier_up_bias": float(get("classifier.up.bias")[0]),
        }
    return {}
