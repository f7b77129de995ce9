"""A replica for tests: a real process that speaks HTTP/1.1 on a Unix socket and reports what it can see.

    replica_program.py SOCKET [--crash | --never-ready | --chatty | --child | --ignore-term]

GET /health -> 200; GET /look?python=EXPR -> repr of the expression, evaluated inside.
"""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        status, body = 200, b"ok"
        if self.path == "/health" and "--never-ready" in sys.argv:
            status = 503
        elif self.path.startswith("/look?python="):
            try:
                scope = {"os": os, "socket": socket, "subprocess": subprocess}
                body = repr(eval(unquote(self.path.partition("=")[2]), scope)).encode()
            except Exception as e:
                body = f"{type(e).__name__}: {e}".encode()
        if "--chatty" in sys.argv:
            print("x" * 4096, flush=True)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    if "--crash" in sys.argv:
        print("loading", flush=True)
        print("weights.gguf: unexpected end of file", file=sys.stderr)
        sys.exit(3)
    if "--child" in sys.argv:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if "--ignore-term" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(0)
    Server(sys.argv[1], Handler).serve_forever()
