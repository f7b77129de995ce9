"""The egress process of a provider: a real process, a real TLS server with a throw-away authority."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from allod.engines.provider.config import ProviderConfig
from allod.engines.provider.spec import config_bytes, provider_spec
from allod.errors import NotReady
from allod.sites.provider import KeyReference

SECRET = "sk-secret-of-the-provider-0123456789"


class Provider(http.server.ThreadingHTTPServer):
    """Answers as its `model` field asks; remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.gone = threading.Event()
        self.first_frame = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        match body["model"]:
            case "up-stream":
                self._stream(body)
            case "up-one-line":
                self._one_line()
            case "up-401":
                self._json(401, {"error": f"bad key {SECRET}"})
            case "up-422":
                self._json(422, {"detail": [{"msg": f"you sent {self.headers['authorization']}"}]})
            case "up-429":
                self._json(429, {"message": "slow down"}, {"retry-after": "7"})
            case "up-redirect":
                self._json(307, {}, {"location": "https://elsewhere.example/v1/chat/completions"})
            case _:
                call = {"id": "abcdefghi", "function": {"name": "f", "arguments": {"a": 1}}}
                message = {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "hi"}],
                    "tool_calls": [call],
                }
                self._json(
                    200, {"choices": [{"index": 0, "finish_reason": "model_length", "message": message}]}
                )

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for k, v in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(k, v)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _one_line(self) -> None:
        """A frame that never ends, as far as anyone reads it."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(b"data: {")
            for _ in range(1024):
                self.wfile.write(b"x" * 65_536)
            self.wfile.write(b"}\n\n")
        except (OSError, ssl.SSLError):
            self.server.gone.set()

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        endless = body.get("temperature") == 2
        try:
            for i in range(100_000 if endless else 3):
                frame = {"choices": [{"index": 0, "delta": {"content": str(i)}, "finish_reason": None}]}
                self.wfile.write(f"data: {json.dumps(frame)}\n\n".encode())
                self.server.first_frame.set()
                if endless:
                    time.sleep(0.01)
            self.wfile.write(b"data: [DONE]\n\n")
        except (OSError, ssl.SSLError):
            self.server.gone.set()


def _authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, and a server context that presents it."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    ca, private = folder / "ca.pem", folder / "key.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, private)
    return ca, context


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, Path]]:
    ca, context = _authority(tmp_path_factory.mktemp("tls"))
    server = Provider()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, ca
    server.shutdown()
    server.server_close()


def _launch(folder: Path, config: ProviderConfig) -> tuple[subprocess.Popen[bytes], httpx.Client]:
    path = folder / "provider.json"
    path.write_bytes(config_bytes(config))
    spec = provider_spec(
        config,
        id="p",
        service="p",
        run_dir=folder,
        config_path=path,
        # A proxy in the environment must not divert anything.
        environment={"PROVIDER_KEY": SECRET, "HTTPS_PROXY": "http://127.0.0.1:9"},
    )
    process = subprocess.Popen(
        spec.argv, env=spec.env | {"HTTPS_PROXY": "http://127.0.0.1:9"}, stderr=subprocess.PIPE
    )
    client = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(spec.socket)), base_url="http://p", timeout=10
    )
    for _ in range(200):
        try:
            if client.get("/health").status_code == 200:
                return process, client
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the egress process did not become ready")


def _config(server: Provider, ca: Path | None, api: str) -> ProviderConfig:
    return msgspec.convert(
        {
            "base_url": f"https://127.0.0.1:{server.server_address[1]}/api/v1",
            "api": api,
            "key": {"scheme": "env", "target": "PROVIDER_KEY"},
            "models": {"ours": "theirs"},
            "ca_file": str(ca) if ca else "",
        },
        ProviderConfig,
    )


@pytest.fixture(scope="module", params=["openai", "mistral"])
def egress(
    request: pytest.FixtureRequest, provider: tuple[Provider, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, httpx.Client, Provider, subprocess.Popen[bytes]]]:
    server, ca = provider
    process, client = _launch(tmp_path_factory.mktemp("e"), _config(server, ca, request.param))
    yield request.param, client, server, process
    client.close()
    process.terminate()
    assert process.wait(10) in {0, -15}
    assert process.stderr is not None
    assert SECRET.encode() not in process.stderr.read()


Egress = tuple[str, httpx.Client, Provider, subprocess.Popen[bytes]]


def _ask(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]} | more
    return client.post(
        "/v1/chat/completions", json=body, headers={"allod-internal-caller": "who", "cookie": "c"}
    )


def test_only_the_key_and_the_body_leave(egress: Egress) -> None:
    api, client, server, _ = egress
    assert _ask(
        client, "ours", seed=3, tool_choice="required", stream_options={"include_usage": True}
    ).is_success
    path, headers, body = server.seen[-1]
    assert path == "/api/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert not {"cookie", "allod-internal-caller"} & set(headers)
    assert body["model"] == "theirs"
    if api == "mistral":
        assert body["random_seed"] == 3
        assert body["tool_choice"] == "any"
        assert not {"seed", "stream_options"} & set(body)
    else:
        assert body["seed"] == 3
        assert body["tool_choice"] == "required"


def test_mistral_answers_are_read_as_openai(egress: Egress) -> None:
    api, client, _, _ = egress
    choice = _ask(client, "ours").json()["choices"][0]
    if api == "mistral":
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == "hi"
        function = choice["message"]["tool_calls"][0]["function"]
        assert json.loads(function["arguments"]) == {"a": 1}
    else:
        assert choice["finish_reason"] == "model_length"


def test_a_frame_without_end_fills_no_memory(egress: Egress) -> None:
    api, client, _, process = egress
    body = {"model": "up-one-line", "messages": [], "stream": True}
    with contextlib.suppress(httpx.RemoteProtocolError):  # cut short is what it should be where it is read
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            received = sum(len(part) for part in response.iter_bytes())
        assert api == "openai", "the mistral dialect is translated, so a frame has to be whole"
        assert received > 64 * 1024 * 1024
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 120 * 1024, "a provider must not be able to fill this machine's memory"
    assert client.get("/health").status_code == 200


def test_streams_pass_frame_by_frame(egress: Egress) -> None:
    _, client, _, _ = egress
    response = _ask(client, "up-stream", stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    frames = [f for f in response.text.split("\n\n") if f]
    assert len(frames) == 4
    assert frames[-1] == "data: [DONE]"
    assert json.loads(frames[1][6:])["choices"][0]["delta"]["content"] == "1"


def test_leaving_closes_the_providers_connection(egress: Egress) -> None:
    _, client, server, _ = egress
    server.gone.clear()
    body = {"model": "up-stream", "messages": [], "stream": True, "temperature": 2}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
    assert server.gone.wait(5), "the provider was still writing five seconds after the caller left"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("up-401", 503, "provider.key-refused"), ("up-redirect", 503, "provider.redirect")],
)
def test_what_concerns_the_operator_is_said_without_the_key(
    egress: Egress, model: str, status: int, code: str
) -> None:
    response = _ask(egress[1], model)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert SECRET not in response.text


def test_a_key_that_the_provider_repeats_is_cut_out(egress: Egress) -> None:
    response = _ask(egress[1], "up-422")
    assert response.status_code == 422
    assert SECRET not in response.text
    assert "***" in response.text


def test_rate_limits_pass_with_their_delay(egress: Egress) -> None:
    response = _ask(egress[1], "up-429")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"


def test_no_other_path_leads_out(egress: Egress) -> None:
    _, client, server, _ = egress
    before = len(server.seen)
    assert client.post("/v1/files", json={}).status_code == 404
    assert client.get("/v1/chat/completions").status_code == 400
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400
    assert len(server.seen) == before


def test_a_field_that_would_change_the_answer_is_refused(egress: Egress) -> None:
    api, client, _, _ = egress
    response = _ask(client, "ours", logit_bias={"1": 5})
    assert response.status_code == (400 if api == "mistral" else 200)


def test_a_certificate_nobody_vouches_for_is_refused(provider: tuple[Provider, Path], tmp_path: Path) -> None:
    server, _ = provider
    before = len(server.seen)
    process, client = _launch(tmp_path, _config(server, None, "openai"))
    try:
        response = _ask(client, "ours")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "provider.unreachable"
        assert response.headers["retry-after"]
        assert len(server.seen) == before
    finally:
        process.kill()
        process.communicate()


def test_without_its_key_nothing_is_launched(provider: tuple[Provider, Path], tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        _config(provider[0], None, "openai"), key=KeyReference(scheme="env", target="NOT_SET")
    )
    with pytest.raises(NotReady, match="NOT_SET"):
        provider_spec(
            config, id="p", service="p", run_dir=tmp_path, config_path=tmp_path / "c", environment={}
        )
