"""Asks the configured witnesses to cosign the ledger's head (C2SP tlog-witness), while the node runs.

Someone who does not trust the operator runs a witness; from then on the operator cannot show two histories.
A witness that is away or refuses does not hold up anything: the checkpoint goes without its cosignature, and
the status says so.
"""

from __future__ import annotations

import asyncio

import httpx

from allod.app.sequencer import Sequencer
from allod.config import WitnessConfig
from allod.errors import AllodError, NotReady
from allod.ledger.proof import Prover
from allod.ledger.store import Store
from allod.ledger.witness import cosign
from allod.limits import WITNESS_INTERVAL_S, WITNESS_TIMEOUT_S
from allod.signing import VKey


class Witnesses:
    """`failures` has the URL and the last error of each witness that did not cosign."""

    def __init__(self, configured: tuple[WitnessConfig, ...], sequencer: Sequencer) -> None:
        """Raises Usage `vkey.malformed`."""
        self._witnesses = tuple((w.url, VKey.parse(w.key)) for w in configured)
        self._sequencer = sequencer
        self._cosigned: dict[str, int] = {}  # URL -> the size it cosigned last, as far as we know
        self.failures: dict[str, AllodError] = {}

    async def run(self) -> None:
        """Until cancelled. Returns at once where no witness is configured: nothing is contacted unasked."""
        while self._witnesses:
            for url, key in self._witnesses:
                try:
                    await self._ask(url, key)
                    self.failures.pop(url, None)
                except AllodError as e:
                    self.failures[url] = e
            await asyncio.sleep(WITNESS_INTERVAL_S)

    async def _ask(self, url: str, key: VKey) -> None:
        note, size, root = await self._sequencer.ask(lambda log: (log.checkpoint(), log.size, log.root))
        known = self._cosigned.get(url, 0)
        if known == size:
            return
        # Outside the log's lock: a slow witness must not hold up receipts. The tiles of a size that is
        # signed never change, so the proof may be read beside the writer.
        proof = Prover(Store(root), size).consistency
        cosigned = await asyncio.to_thread(cosign, lambda body: _post(url, body), note, [key], known, proof)
        trusted = [k for _, k in self._witnesses]
        await self._sequencer.ask(lambda log: log.add_cosignatures(cosigned, trusted))
        self._cosigned[url] = size


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/add-checkpoint", content=body, timeout=WITNESS_TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as e:
        raise NotReady(
            "witness.unreachable",
            f"the witness at {url} does not answer ({type(e).__name__})",
            hint="checkpoints go without its cosignature until it does",
        ) from e
    return answer.status_code, answer.content
