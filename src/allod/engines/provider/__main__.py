"""`python -m allod.engines.provider --socket PATH --config FILE`: passes exchanges to one provider until
SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvicorn

from allod.engines.provider.config import read
from allod.engines.provider.relay import Relay
from allod.engines.socket_claim import claim
from allod.errors import AllodError


async def serve(socket: Path, config: Path) -> None:
    claim(socket)
    relay = Relay(read(config))
    server = uvicorn.Server(
        uvicorn.Config(
            relay,
            uds=str(socket),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )
    try:
        await server.serve()
    finally:
        await relay.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m allod.engines.provider", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.socket, given.config))
    except AllodError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
