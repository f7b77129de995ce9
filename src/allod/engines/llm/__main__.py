"""`python -m allod.engines.llm`: one llama.cpp replica on one Unix socket.

Guarantees: `GET /health` is 503 until the model answers and 200 from then on; SIGTERM ends it at once and
takes the socket away; a model file that is not whole, or a socket somebody already answers on, ends it
before it listens, with one line on stderr and the exit code of the error. It does not watch its parent: a
replica outlives a killed control process and is adopted by the next.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
import uvicorn
import xllamacpp

from allod.engines.llm import embeddings
from allod.engines.socket_claim import claim
from allod.errors import AllodError, Unprocessable, Usage
from allod.models import gguf_header


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line carries. `context` is per request; `parallel` requests are batched together."""

    socket: Path
    model: Path
    alias: str
    context: int
    parallel: int
    threads: int
    connections: int
    embedding: bool = False


def parse(argv: list[str]) -> Options:
    p = argparse.ArgumentParser(prog="python -m allod.engines.llm", description="A llama.cpp replica.")
    p.add_argument(
        "--socket", type=Path, required=True, help="Unix socket to listen on; its name ends in .sock"
    )
    p.add_argument("--model", type=Path, required=True, help="GGUF file")
    p.add_argument("--alias", required=True, help="the model name that answers carry")
    p.add_argument("--ctx", type=int, default=4096, dest="context", help="tokens of context per request")
    p.add_argument("--parallel", type=int, default=4, help="requests answered at the same time")
    p.add_argument("--threads", type=int, default=1, help="computing threads; fewer than cores")
    p.add_argument("--connections", type=int, default=256, help="open connections, idle ones included")
    p.add_argument("--embedding", action="store_true", help="answer with vectors instead of text")
    return Options(**vars(p.parse_args(argv)))


def parameters(options: Options, listen: Path) -> xllamacpp.CommonParams:
    """llama.cpp's parameters for these options; everything that is not needed is off."""
    p = xllamacpp.CommonParams()
    p.model.path = str(options.model)
    p.model_alias = {options.alias}
    p.hostnames = [str(listen)]  # llama.cpp takes a name that ends in .sock for a Unix socket
    p.n_ctx = options.context * options.parallel  # llama.cpp divides its context between the slots
    p.n_parallel = options.parallel
    p.cpuparams.n_threads = options.threads
    p.cpuparams_batch.n_threads = options.threads
    # One thread serves one connection for as long as it is open, so idle pooled connections need theirs too.
    p.n_threads_http = options.connections
    p.use_jinja = True
    p.endpoint_metrics = True
    p.endpoint_slots = False  # shows the prompts of other requests
    p.endpoint_props = False  # would let a request change the settings
    p.ui = False
    p.cache_ram_mib = 0  # no prompt outlives its slot
    p.verbosity = 1  # errors only: warnings repeat parts of requests
    if options.embedding:
        p.embedding = True
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        p.n_batch = p.n_ubatch = options.context  # an encoder sees its whole input in one pass
    return p


def serve(options: Options) -> None:
    """Loads the model and answers until SIGTERM or SIGINT."""
    claim(options.socket)
    try:
        header = gguf_header.read(options.model)
    except OSError as e:
        raise Unprocessable("model.unreadable", f"{options.model.name} cannot be read: {e.strerror}") from e
    trained = header.context_tokens
    if trained is not None and options.context > trained:
        raise Usage(
            "engine.context",
            f"{options.alias} was made for {trained} tokens of context, not {options.context}",
        )
    if options.embedding:
        _serve_embeddings(options, int(header.scalars.get(f"{header.architecture}.embedding_length", 0)))
    else:
        _serve_chat(options)


def _serve_chat(options: Options) -> None:
    # Blocked before llama.cpp starts its threads, so that they inherit the mask and only `sigwait` is woken.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    server = _loaded(options, options.socket)  # kept: it stops listening when it is let go
    print(f"ready on {server.listening_address}", file=sys.stderr, flush=True)
    signal.sigwait(ends)
    options.socket.unlink(missing_ok=True)
    # llama.cpp's orderly shutdown waits for every request and has been seen to hang after a bad schema.
    os._exit(0)


def _serve_embeddings(options: Options, width: int) -> None:
    with tempfile.TemporaryDirectory(prefix="llm-") as private:
        server = _loaded(options, Path(private) / "llama.sock")  # it cannot be told not to listen
        app = embeddings.application(server.handle_embeddings, options.alias, width)
        uvicorn.run(
            app,
            uds=str(options.socket),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    os._exit(0)


def _loaded(options: Options, listen: Path) -> xllamacpp.Server:
    """llama.cpp with the model in memory, listening. Raises Unprocessable `model.not-loadable`."""
    try:
        return xllamacpp.Server(parameters(options, listen))
    except Exception as e:
        raise Unprocessable("model.not-loadable", f"llama.cpp refuses {options.model.name}: {e}") from e


def main() -> int:
    try:
        serve(parse(sys.argv[1:]))
    except AllodError as e:
        print(e, file=sys.stderr)
        if e.hint:
            print(f"next: {e.hint}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
