"""A witness (C2SP tlog-witness): cosigns checkpoints of logs it knows, and never two histories of one log.

    python -m allod.ledger.witness --state DIR --listen 127.0.0.1:PORT --key FILE --log VKEY

is all that someone else has to run. `Witness.handle` is the protocol as a function from request body to
answer; only `serve` opens a socket. What is remembered per log is on disk before an answer leaves, under one
lock, so that neither a crash nor two requests at once can make the witness sign a fork or go back.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from allod.clock import Clock, SystemClock
from allod.errors import Integrity, NotReady
from allod.ledger import checkpoint as cp
from allod.ledger import files, tree
from allod.ledger.checkpoint import Checkpoint
from allod.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, WITNESS_TIMEOUT_S
from allod.signing import (
    COSIGNATURE,
    FileSigner,
    Note,
    Signer,
    VKey,
    b64,
    load_or_generate,
    parse_note,
    parse_signatures,
    sign_note,
    unb64,
)

_SIZE_TYPE = "text/x.tlog.size"
_TEXT_TYPE = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = _TEXT_TYPE


class Request(NamedTuple):
    """An add-checkpoint body: the size the client believes was cosigned last, the proof from it, the note."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        lines = [f"old {self.old_size}", *(b64(h) for h in self.proof), ""]
        return ("\n".join(lines) + "\n").encode() + self.note

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """Raises ValueError."""
        head, blank, note = body.partition(b"\n\n")
        first, *lines = head.decode("ascii").split("\n")
        word, _, number = first.partition(" ")
        hashes = [unb64(line) for line in lines]
        proof = tuple(h for h in hashes if h is not None and len(h) == tree.HASH_BYTES)
        if not blank or word != "old" or str(int(number)) != number or int(number) < 0:
            raise ValueError("old size line")
        if len(proof) != len(hashes) or len(proof) > PROOF_HASHES_MAX:
            raise ValueError("proof lines")
        return cls(int(number), proof, note)


class Witness:
    """Knows logs by their verifier keys. Thread-safe; holds its state folder against other processes."""

    def __init__(self, state: Path, signers: Sequence[Signer], logs: Sequence[VKey], clock: Clock) -> None:
        """Raises NotReady `witness.busy` if another process serves from `state`."""
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = (state / "lock").open("w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise NotReady("witness.busy", f"another witness serves from {state}") from e
        self._state = state
        self._signers = signers
        self._logs = tuple(logs)
        self._clock = clock
        self._lock = threading.Lock()

    def handle(self, body: bytes) -> Answer:
        """One add-checkpoint: 200 with cosignature lines, or 400, 403, 404, 409, 422 as specified."""
        try:
            request = Request.parse(body)
            note = parse_note(request.note)
            named = Checkpoint.parse(note.text)
        except (ValueError, Integrity):
            return Answer(400, b"malformed request\n")
        keys = tuple(k for k in self._logs if k.name == named.origin)
        if not keys:
            return Answer(404, b"unknown log\n")
        try:
            checkpoint = cp.verify(request.note, keys).checkpoint
        except Integrity:
            return Answer(403, b"not signed by a key of this log\n")
        if request.old_size > checkpoint.size:
            return Answer(400, b"the old size is beyond the checkpoint\n")
        with self._lock:
            return self._cosign(request, note, checkpoint)

    def latest(self, origin: str) -> Checkpoint | None:
        """The last checkpoint cosigned for a log. Raises Integrity if its record is damaged."""
        try:
            data = self._path(origin).read_bytes()
        except FileNotFoundError:
            return None
        checkpoint = Checkpoint.parse(data)
        if checkpoint.text() != data or checkpoint.origin != origin:
            raise Integrity("witness.damaged", f"the record of {origin} is damaged")
        return checkpoint

    def _cosign(self, request: Request, note: Note, new: Checkpoint) -> Answer:
        old = self.latest(new.origin) or Checkpoint(new.origin, 0, tree.EMPTY_ROOT)
        if request.old_size != old.size or (new.size == old.size and new.root != old.root):
            return Answer(409, b"%d\n" % old.size, _SIZE_TYPE)
        if not tree.consistent(old.size, old.root, new.size, new.root, request.proof):
            return Answer(422, b"the consistency proof is wrong\n")
        files.replace(self._path(new.origin), new.text(), mode=0o600)
        now_s = self._clock.now_us() // 1_000_000
        cosigned = sign_note(note.text, self._signers, now_s)
        return Answer(200, "".join(s.line() for s in cosigned.signatures).encode())

    def _path(self, origin: str) -> Path:
        return self._state / hashlib.sha256(origin.encode()).hexdigest()


Post = Callable[[bytes], tuple[int, bytes]]  # sends an add-checkpoint body; gives status and answer body


def cosign(
    post: Post,
    note: bytes,
    witnesses: Sequence[VKey],
    old_size: int,
    proof: Callable[[int], tuple[bytes, ...]],
) -> bytes:
    """Asks a witness to cosign our checkpoint; returns the note with the cosignatures of known keys added.

    `proof(size)` gives the consistency proof from `size`; asked again if the witness remembers another.
    Raises Integrity `witness.refused` (it holds another history, or refused) and `witness.unsigned`.
    """
    ours = parse_note(note)
    for _ in range(2):
        status, body = post(Request(old_size, proof(old_size), note).encode())
        if status != 409 or not body.strip().isdigit() or int(body) == old_size:
            break
        old_size = int(body)
        if old_size > Checkpoint.parse(ours.text).size:
            raise Integrity("witness.refused", f"the witness saw {old_size} leaves, more than there are")
    if status != 200:
        reason = body[:200].decode(errors="replace").strip()
        raise Integrity("witness.refused", f"the witness answered {status}: {reason}")
    known = {(k.name, k.key_id): k for k in witnesses}
    try:
        offered = parse_signatures(body.decode())
    except ValueError as e:
        raise Integrity("witness.unsigned", "the witness's answer holds no signatures") from e
    good = [s for s in offered if (k := known.get((s.name, s.key_id))) and k.verify(ours.text, s.blob)]
    if not good:
        raise Integrity("witness.unsigned", "the witness's answer holds no cosignature of a trusted key")
    return Note(ours.text, (*ours.signatures, *good)).encode()


def serve(witness: Witness, host: str, port: int) -> ThreadingHTTPServer:
    """A bound HTTP server for `POST /add-checkpoint`; the caller runs `serve_forever` and `shutdown`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = WITNESS_TIMEOUT_S

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/add-checkpoint":
                answer = Answer(404, b"there is only POST /add-checkpoint\n")
            elif not length.isdigit() or int(length) > NOTE_BYTES_MAX:
                answer = Answer(413, b"send a Content-Length within bounds\n")
            else:
                answer = witness.handle(self.rfile.read(int(length)))
            self.close_connection = answer.status in {404, 413}
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Silent: what a witness has to say is in its answers and its state."""

    return ThreadingHTTPServer((host, port), Handler)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m allod.ledger.witness", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for what was cosigned")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--key", type=Path, required=True, help="the witness's key file; made if missing")
    parser.add_argument("--name", default="witness.localhost", help="name of a key that is made")
    parser.add_argument("--log", action="append", required=True, metavar="VKEY", help="a log's verifier key")
    options = parser.parse_args(argv)
    host, _, port = options.listen.rpartition(":")
    signer = FileSigner.load(options.key) if options.key.exists() else None
    signer = signer or load_or_generate(options.key, options.name, COSIGNATURE)
    witness = Witness(options.state, [signer], [VKey.parse(v) for v in options.log], SystemClock())
    server = serve(witness, host, int(port))
    print(f"{signer.vkey}\nlistening on {server.server_address[0]!s}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
