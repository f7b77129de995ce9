"""The two ends of the streaming benchmark: `serve` is a model server, `load` a crowd of clients that counts
frames.

python bench/sse.py serve SOCKET                      64 frames, 20 ms apart, usage where it is asked for
python bench/sse.py load HOST PORT STREAMS KEY PATH   one JSON line: streams, complete, frames, first frame
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

FRAMES = 64
GAP_S = 0.020
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(frame: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frame), frame)


class ModelServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""
        self.sent = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(self.buffer[:end].lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.usage = b'"include_usage":true' in self.buffer
        self.buffer = b""
        self.sent = 0
        self.transport.write(_HEAD)
        self.tick()

    def tick(self) -> None:
        if self.transport.is_closing():
            return
        if self.sent < FRAMES:
            frame = (
                b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
                b'"choices":[{"index":0,"delta":{"content":" token%d"},"finish_reason":null}]}\n\n'
                % self.sent
            )
            self.transport.write(_chunk(frame))
            self.sent += 1
            asyncio.get_running_loop().call_later(GAP_S, self.tick)
            return
        last = b""
        if self.usage:
            last += _chunk(
                b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":64}}\n\n'
            )
        self.transport.write(last + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


class Reader(asyncio.Protocol):
    def __init__(self, request: bytes, done: asyncio.Future) -> None:
        self.request = request
        self.done = done
        self.frames = 0
        self.complete = False
        self.tail = b""
        self.first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.began = time.monotonic()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.frames:
            self.first_s = time.monotonic() - self.began
        self.frames += data.count(b"data: {")
        self.tail = (self.tail + data)[-64:]
        if self.tail.endswith(b"\r\n0\r\n\r\n"):
            self.complete = b"[DONE]" in self.tail
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def serve(path: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(ModelServer, path, backlog=2048)
    await server.serve_forever()


async def load(host: str, port: int, streams: int, key: str, path: str) -> None:
    loop = asyncio.get_running_loop()
    body = b'{"model":"s","stream":true,"messages":[{"role":"user","content":"count to sixty-four"}]}'
    request = (
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), key.encode(), len(body), body)
    )
    readers = []
    for _ in range(streams):
        reader = Reader(request, loop.create_future())
        await loop.create_connection(lambda r=reader: r, host, port)
        readers.append(reader)
    await asyncio.wait_for(asyncio.gather(*(r.done for r in readers)), 60)
    first = sorted(r.first_s for r in readers)
    print(
        json.dumps(
            {
                "streams": streams,
                "complete": sum(r.complete for r in readers),
                "frames": sum(r.frames for r in readers),
                "first_frame_ms": round(first[len(first) // 2] * 1000, 2),
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve(sys.argv[2]))
    else:
        uvloop.run(load(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6]))
