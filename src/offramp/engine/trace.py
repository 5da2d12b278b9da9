"""Exit traces: where each token left, and what every exit said. Written as JSON lines, read back by criterion `replay`.

One line per output:

    {"format": 1, "depth": 30, "exits": [10, 20],       model: layers, exit layers
     "prompt_tokens": 17, "token_ids": [...],           the output
     "source_tokens": 40,                               where there is an encoder
     "exit_layers": [30, 10, ...],                      layer that proposed each token
     "tests": [[], [[10, 0.97]], [[10, 0.2], [20, null]], ...]}

`tests` holds, per token, [layer, confidence] of every test, lowest layer first. A confidence is rounded to six digits;
null means that the criterion did not fire at all. Under `verify`, a test that fired for a token proposed at the top is
a rejected draft; tests of what was drafted behind it are not kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offramp.engine.decide import Test
from offramp.engine.sequence import Sequence
from offramp.errors import TraceError

FORMAT = 1


class TraceRecorder:
    """Collects exit tests (pass `record` as the engine's `on_test`) and writes one line per output."""

    def __init__(self) -> None:
        self._tests: dict[int, dict[int, list[Test]]] = {}

    def record(self, test: Test) -> None:
        """Take a test into account; a token that is tested anew forgets its earlier tests."""
        tests = self._tests.setdefault(test.sequence.number, {}).setdefault(test.signals.output_index, [])
        if tests and test.signals.boundary <= tests[-1].signals.boundary:
            tests.clear()
        tests.append(test)

    def drop(self, number: int) -> None:
        """Forget the tests of a sequence."""
        self._tests.pop(number, None)

    def line(self, sequence: Sequence) -> str:
        """The JSON line of an ended sequence."""
        shape, tests = sequence.shape, self._tests.get(sequence.number, {})
        count = sequence.accepted - sequence.prompt_length
        return json.dumps(
            {
                "format": FORMAT,
                "depth": shape.num_layers,
                "exits": list(shape.exit_layers),
                "prompt_tokens": sequence.prompt_length,
                **({} if sequence.source is None else {"source_tokens": len(sequence.source.tokens)}),
                "token_ids": sequence.tokens[sequence.prompt_length : sequence.accepted],
                "exit_layers": [shape.layers_at[m] for m in sequence.marks[:count]],
                "tests": [[_said(test) for test in tests.get(i, [])] for i in range(count)],
            },
            separators=(",", ":"),
        )


def _said(test: Test) -> tuple[int, float | None]:
    return test.signals.layer, None if test.confidence is None else round(test.confidence, 6)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The outputs of a trace file, one dictionary per line.

    Raises:
        TraceError: the file cannot be read, or a line is not an output of this format.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"trace `{path}` cannot be read: {error}") from error
    outputs = []
    for number, text in enumerate(lines, start=1):
        try:
            output = json.loads(text)
            layers = [*output["exits"], *output["exit_layers"]]
            good = output["format"] == FORMAT and all(type(layer) is int and layer >= 0 for layer in layers)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise TraceError(
                f"line {number} of trace `{path}` is not an exit trace of format {FORMAT}",
                hint="record one with `offramp generate --record-trace FILE`",
            )
        outputs.append(output)
    return outputs
