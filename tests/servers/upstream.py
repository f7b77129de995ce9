"""A model server for tests: a real process that speaks HTTP/1.1 on a Unix socket and does what the request
says.

The request's JSON may have a `script`: `status`, `frames`, `delay_s`, `die_after` (frames), `no_done`,
`no_usage`, `before_s`, `close` (no answer at all), `pieces` (bytes per write), `size` (bytes of answer),
`until_close`, `chunked`, `garbage` (bytes in place of an answer). Each request is appended to `--log` as
one JSON line when it arrives, and a line `{"gone": true}` when its connection is lost before the answer was
complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path


class Server:
    def __init__(self, name: str, log: Path, default: dict) -> None:
        self.name = name
        self.log = log.open("a", buffering=1)
        self.default = default

    def note(self, **line: object) -> None:
        self.log.write(json.dumps({"name": self.name, **line}) + "\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        length = next((int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        asked = json.loads(body) if body else {}
        script = {**self.default, **asked.get("script", {})}
        self.note(line=lines[0], head=lines[1:-2], body=body.decode(), model=asked.get("model"))
        gone = asyncio.ensure_future(self.watch(reader))
        try:
            await asyncio.sleep(script.get("before_s", 0))
            if gone.done():
                self.note(gone=True)
                return False
            return await self.answer(asked, script, writer, gone)
        finally:
            gone.cancel()

    async def watch(self, reader: asyncio.StreamReader) -> None:
        while not reader.at_eof():
            await asyncio.sleep(0.005)

    async def answer(
        self, asked: dict, script: dict, writer: asyncio.StreamWriter, gone: asyncio.Future
    ) -> bool:
        if script.get("close"):
            return False
        if "garbage" in script:
            writer.write(script["garbage"].encode("latin-1"))
            await writer.drain()
            return False
        if asked.get("stream"):
            return await self.stream(asked, script, writer, gone)
        usage = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
        answer = {"id": "x", "object": "chat.completion", "model": asked.get("model"), "pid": os.getpid(),
                  "choices": [{"index": 0, "message": {"content": "a" * script.get("size", 20)}}],
                  "usage": usage}  # fmt: skip
        if script.get("ocr"):
            answer = {"pages": [{"index": 0, "markdown": "x" * script.get("size", 20)}],
                      "usage_info": {"pages_processed": 3, "doc_size_bytes": 9}}  # fmt: skip
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {script.get('status', 200)} X\r\ncontent-type: application/json\r\n"
        if script.get("chunked"):
            out = head.encode() + b"transfer-encoding: chunked\r\n\r\n"
            for at in range(0, len(body), 1000):
                piece = body[at : at + 1000]
                out += b"%x\r\n%b\r\n" % (len(piece), piece)
            out += b"0\r\n\r\n"
        elif script.get("until_close"):
            out = head.encode() + b"connection: close\r\n\r\n" + body
        else:
            out = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
        if "cut" in script:
            writer.write(out[: script["cut"]])
            await writer.drain()
            return False
        step = script.get("pieces", len(out))
        for at in range(0, len(out), step):
            writer.write(out[at : at + step])
            await writer.drain()
            if step < len(out):
                await asyncio.sleep(0)
        return not script.get("until_close")

    async def stream(
        self, asked: dict, script: dict, writer: asyncio.StreamWriter, gone: asyncio.Future
    ) -> bool:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        wants = (asked.get("stream_options") or {}).get("include_usage")
        frames = []
        for n in range(script.get("frames", 4)):
            frame = {
                "id": "x",
                "choices": [{"index": 0, "delta": {"content": f"t{n} " + "y" * script.get("size", 0)}}],
            }
            if wants:
                frame["usage"] = None
            frames.append(frame)
        if wants and not script.get("no_usage"):
            used = {"prompt_tokens": 5, "completion_tokens": len(frames), "total_tokens": 5 + len(frames)}
            frames.append({"id": "x", "choices": [], "usage": used})
        writer.write(head)
        for n, frame in enumerate(frames):
            if n == script.get("die_after"):
                await writer.drain()
                return False
            if gone.done():
                self.note(gone=True, sent=n)
                return False
            await self.put(writer, b"data: %b\n\n" % json.dumps(frame).encode(), script)
            if script.get("delay_s"):
                await asyncio.sleep(script["delay_s"])
        if not script.get("no_done"):
            await self.put(writer, b"data: [DONE]\n\n", script)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def put(self, writer: asyncio.StreamWriter, frame: bytes, script: dict) -> None:
        step = script.get("pieces", len(frame))
        for at in range(0, len(frame), step):
            piece = frame[at : at + step]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--name", default="upstream")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--default", default="{}")
    args = parser.parse_args()
    Path(args.socket).unlink(missing_ok=True)
    server = Server(args.name, args.log, json.loads(args.default))
    listening = await asyncio.start_unix_server(server.serve, args.socket, limit=1 << 27, backlog=1024)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
