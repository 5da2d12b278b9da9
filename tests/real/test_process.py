"""The default model behind a pipe says what it says without one."""

from __future__ import annotations

import asyncio
from typing import Any

from offramp import LLM, SamplingParams
from offramp.serve.process import ProcessClient
from offramp.serve.protocol import Job

TEXTS = ["Explain gravity to a child.", "Name three rivers.", "Write a haiku about snow."]
DIALS: list[Any] = ["off", "lossless", "lossless"]
SAMPLING = SamplingParams(max_tokens=24)
OPTIONS: dict[str, Any] = {"exits": "smollm2-135m", "max_model_len": 512, "profitability": False}


def test_an_engine_of_its_own_gives_the_same_text() -> None:
    with LLM(**OPTIONS) as llm:
        prompts = [llm.tokenizer.encode(text) for text in TEXTS]
        expected = [output.text for output in llm.generate(prompts, SAMPLING)]

    async def serve() -> list[str]:
        client = ProcessClient(OPTIONS)
        await client.start()
        info = await client.wait_ready()
        assert info.pack == "smollm2-135m" and info.resolved["lossless"]["draft_threshold"] > 0.1

        async def text(job: Job) -> str:
            return "".join([piece.text async for piece in client.generate(job)])

        jobs = [Job(str(i), tuple(p), SAMPLING, dial) for i, (p, dial) in enumerate(zip(prompts, DIALS, strict=True))]
        try:
            return await asyncio.gather(*map(text, jobs))
        finally:
            await client.close()

    assert asyncio.run(serve()) == expected
