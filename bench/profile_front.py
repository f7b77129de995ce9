"""What the path costs in Python alone: one worker's code driven without sockets, disk waits or a loop turn.

Eight connections send the same request round after round over transports that only take bytes; the sync is
told as done at once. What is left is the parsing, deciding, encoding and writing of the front itself, in CPU
microseconds per exchange. `--counts` prints a profile by calls instead (its times are not to be believed).

    python bench/profile_front.py [--prompt 100] [--rounds 30] [--stream] [--counts]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests" / "servers")]

import uvloop  # noqa: E402
from front_home import KEY, Home  # noqa: E402

from allod.front.client import ClientConnection  # noqa: E402
from allod.front.upstream import Upstream  # noqa: E402
from allod.front.worker import Settings, Worker  # noqa: E402
from front import _ANSWER  # noqa: E402

CONNECTIONS = 8
_BATCHES = 100
_FRAMES = 64


class Wire:
    """A transport that takes bytes and forgets them."""

    def __init__(self) -> None:
        self.taken = 0
        self.last = b""

    def write(self, data: bytes) -> None:
        self.taken += len(data)
        self.last = data

    def writelines(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_extra_info(self, name: str) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Instant:
    """Stands in for the kernel's AIO: every sync is done when it is submitted."""

    def submit(self, files: list[int]) -> None: ...
    def completed(self) -> bool:
        return True

    def close(self) -> None: ...


class Rig:
    def __init__(self, root: Path, prompt: int, *, stream: bool) -> None:
        home = Home(root)
        home.service("m", home.replica("m1"))
        home.publish()
        self.worker = Worker(Settings(home=root, worker=0, host="127.0.0.1", port=0))
        self.worker.load()
        evidence = self.worker.evidence
        evidence.check()
        if evidence._syncer is not None:
            asyncio.get_running_loop().remove_reader(evidence._syncer.eventfd)
        evidence._syncer = Instant()
        self.clients, self.wires, self.upstreams = [], [], []
        self.pool = pool = self.worker.world.replicas["m1"].pool
        for _ in range(CONNECTIONS):
            wire, client = Wire(), ClientConnection(self.worker, inner=False)
            client.connection_made(wire)
            upstream = Upstream(pool)
            upstream.connection_made(Wire())
            pool.give_back(upstream)
            self.clients.append(client)
            self.wires.append(wire)
            self.upstreams.append(upstream)
        more = {"stream": True} if stream else {}
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * prompt}], **more})
        self.request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self.answers = [
            f"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 11:17:35 GMT\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(_ANSWER)}\r\n"
            f"Connection: keep-alive\r\n\r\n{_ANSWER}".encode()
        ]
        if stream:
            frames = [
                b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
                b'"choices":[{"index":0,"delta":{"content":" token%d"},"finish_reason":null}]}\n\n' % n
                for n in range(_FRAMES)
            ]
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            usage = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":64}}\n\n'
            last = b"".join(b"%x\r\n%b\r\n" % (len(f), f) for f in (usage, b"data: [DONE]\n\n"))
            self.answers = [head, *(b"%x\r\n%b\r\n" % (len(f), f) for f in frames), last + b"0\r\n\r\n"]

    def batch(self) -> None:
        """One request on every connection, answered and released."""
        before = self.wires[0].taken
        for client in self.clients:
            client.data_received(self.request)
        self.pool._depart()
        for piece in self.answers:
            for upstream in self.upstreams:
                upstream.data_received(piece)
        evidence = self.worker.evidence
        evidence._sync()
        evidence._signalled()
        assert self.wires[0].taken > before
        assert not evidence._waiting

    def make_room(self) -> None:
        """The next segment, and nobody's receipts: neither is a part of the figure."""
        spool = self.worker.evidence._spool
        if spool.wants_room:
            spool.make_room()
        for path in sorted(spool.folder.glob("*.seg"))[:-3]:
            path.unlink()


async def measure(args: argparse.Namespace, root: Path) -> None:
    rig = Rig(root, args.prompt, stream=args.stream)
    batches = _BATCHES if args.prompt < 10_000 and not args.stream else 10
    profile = cProfile.Profile() if args.counts else None
    figures = []
    for _ in range(args.rounds):
        rig.make_room()
        await asyncio.sleep(0)
        if profile:
            profile.enable()
        began = time.thread_time()
        for _ in range(batches):
            rig.batch()
        figures.append((time.thread_time() - began) / batches / CONNECTIONS * 1e6)
        if profile:
            profile.disable()
    figures.sort()
    per = f", {figures[0] / _FRAMES:.2f} per frame" if args.stream else ""
    print(f"{figures[0]:.1f} us per exchange at best, median {figures[len(figures) // 2]:.1f}{per}")
    print(f"  {rig.wires[0].last[:24]!r}")
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(args.counts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--counts", type=int, default=0, metavar="LINES")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(args, Path(folder)))


if __name__ == "__main__":
    main()
