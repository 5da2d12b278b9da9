"""The engine's process as the server sees it: its start, its messages, its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

from offramp.serve.messages import LENGTH, FromChild, unpack

END_SECONDS = 5.0
"""A child whose pipe is closed ends at once; one that has not after so long is killed."""


async def start_child(pipe: socket.socket) -> asyncio.subprocess.Process:
    """A child at the other end of our pipe, whose end here is closed."""
    with pipe:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "offramp.serve.worker",
            str(pipe.fileno()),
            pass_fds=[pipe.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's signals are for us alone
        )


async def read_message(reader: asyncio.StreamReader) -> FromChild | None:
    """The next message; None where the pipe is closed."""
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        message: FromChild = unpack(await reader.readexactly(size))
        return message
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def reap(child: asyncio.subprocess.Process) -> int:
    """Wait for the end of a child whose pipe is closed; returns its exit code.

    One whose waiting is cancelled is killed and waited for all the same: nobody else would.
    """
    try:
        return await asyncio.wait_for(child.wait(), END_SECONDS)
    except asyncio.TimeoutError:
        child.kill()
        return await child.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
