"""The main job, as a stranger would try it; `make run` calls this.

A scanned document goes in through the unmodified Mistral SDK, is read by a model on this machine, and comes
back with a receipt that is verified offline with nothing but the node's public key. Then the same document is
aimed at a place its data class forbids: refused, with a receipt of the refusal. At last a small chat model
is made here, because none can be assumed, and answers. The node stays up.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from allod.engines.specimen import write_specimen
from allod.models import minilm
from allod.models.testmodel import build as testmodel
from allod.models.trust import KEY_NAME

ALLOD = [sys.executable, "-m", "allod"]
FORBIDDEN_MODEL = "mistral-ocr-latest"  # served by a provider's site, never by this machine


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True, help="the node's home")
    parser.add_argument(
        "--document", type=Path, help="a PDF or an image of your own; default: a specimen scan"
    )
    parser.add_argument("--listen", default="127.0.0.1:8080")
    args = parser.parse_args()
    home: Path = args.home

    say("1. A node on this machine")
    prepare(home)
    url = start(home, args.listen)
    words = "key create --role developer --label first-receipt --days 1"
    key = allod_json(home, *words.split())["secret"]
    print(f"   {url}, and a developer key for the SDK (valid for a day)")

    with tempfile.TemporaryDirectory() as folder:
        document = args.document or specimen(Path(folder))
        say(f"2. A scanned document goes in: {document.name}, data class restricted")
        text, receipt = read_document(url, key, document, "allod-ocr")
        for line in [line for line in text.splitlines() if line.strip()][:6]:
            print(f"   | {line[:100]}")
        print(f"   receipt {receipt}")

        say("3. A stranger verifies the receipt: offline, with the public key alone")
        verify(home, receipt, Path(folder))

        say(f"4. The same document, aimed at {FORBIDDEN_MODEL}, on someone else's machines")
        refused = read_forbidden(url, key, document)
        verify(home, refused, Path(folder))

        say("5. Models with papers: one out of a package, and a test model trained here (a minute, once)")
        add_models(home)
        receipt_of_chat = chat(url, key)
        verify(home, receipt_of_chat, Path(folder))

    say("The node stays up. Next:")
    print(f"""   open {url}/console          log in with the admin key from above
   .venv/bin/allod status --home {home}
   .venv/bin/allod policy explain --class restricted --model {FORBIDDEN_MODEL} --home {home}
   .venv/bin/allod receipt show {receipt} --home {home}
   .venv/bin/allod run --home {home}           which open-weight models fit this machine
   make down                         stop it""")
    return 0


def prepare(home: Path) -> None:
    """A home with an OCR service of this machine, and one provider's site that the policy can refuse."""
    if not (home / "allod.toml").exists():
        run(home, "init")
    site = home / "sites" / "mistral.toml"
    if not site.exists():
        site.write_text(
            'catalogue = "mistral"\n\n'
            "[provider]\n"
            'key = "env:MISTRAL_API_KEY"\n\n'
            f'[provider.models."{FORBIDDEN_MODEL}"]\nkind = "ocr"\n'
        )


def start(home: Path, listen: str) -> str:
    try:
        status = allod_json(home, "status")
        return str(status["listen"])
    except subprocess.CalledProcessError:
        pass
    out = run(home, "up", "--detach", "--listen", listen, show_errors=True)
    for line in out.splitlines():
        print(f"   {line}")
    return str(allod_json(home, "status")["listen"])


def specimen(folder: Path) -> Path:
    path = folder / "specimen.pdf"
    write_specimen(path)
    return path


def read_document(url: str, key: str, document: Path, model: str) -> tuple[str, str]:
    """The text, and the id of the receipt that came with it."""
    seen: dict[str, str] = {}
    transport = httpx.Client(event_hooks={"response": [lambda r: seen.update(r.headers)]}, timeout=300)
    sdk = Mistral(api_key=key, server_url=url, client=transport)
    data = base64.b64encode(document.read_bytes()).decode()
    mime = "application/pdf" if document.suffix.lower() == ".pdf" else "image/png"
    try:
        answer = sdk.ocr.process(
            model=model,
            document={"type": "document_url", "document_url": f"data:{mime};base64,{data}"},
            http_headers={"allod-data-class": "restricted"},
        )
    except SDKError as e:
        raise RefusedError(json.loads(e.body)["message"], e.headers.get("allod-receipt", "")) from e
    return "\n".join(page.markdown for page in answer.pages), seen["allod-receipt"]


class RefusedError(Exception):
    def __init__(self, message: str, receipt: str) -> None:
        super().__init__(message)
        self.receipt = receipt


def read_forbidden(url: str, key: str, document: Path) -> str:
    try:
        read_document(url, key, document, FORBIDDEN_MODEL)
    except RefusedError as e:
        print(textwrap.fill(f"refused: {e}", 110, initial_indent="   ", subsequent_indent="     "))
        print(f"   receipt {e.receipt}")
        return e.receipt
    raise SystemExit("the document went where it must not go; this is a defect, please report it")


def add_models(home: Path) -> None:
    """Makes, signs and serves two models. Anything else is `allod models pull` or `allod models add`."""
    signing_key = home / "keys" / KEY_NAME
    minilm.build(home / "models", key=signing_key)
    testmodel.build(
        home / "models", key=signing_key, report=lambda line: print(f"   {line}", file=sys.stderr)
    )
    config = home / "allod.toml"
    text = config.read_text()
    for name, engine in ((minilm.NAME, "embeddings"), (testmodel.NAME, "llm")):
        if f'model = "{name}"' not in text:
            text += f'\n[[service]]\nmodel = "{name}"\nengine = "{engine}"\n'
    config.write_text(text)
    run(home, "policy", "reload")
    deadline = time.monotonic() + 60
    while any(
        replica["state"] != "ready"
        for service in allod_json(home, "status")["services"]
        for replica in service["replicas"]
        if replica["site"] == "local"
    ):
        if time.monotonic() > deadline:
            raise SystemExit("a model did not become ready; `allod status` says why")
        time.sleep(0.2)


def chat(url: str, key: str) -> str:
    seen: dict[str, str] = {}
    transport = httpx.Client(event_hooks={"response": [lambda r: seen.update(r.headers)]}, timeout=60)
    sdk = Mistral(api_key=key, server_url=url, client=transport)
    question = "What is the capital of France?"
    print(f"   > {question}\n   < ", end="", flush=True)
    messages = [{"role": "user", "content": question}]
    with sdk.chat.stream(model=testmodel.NAME, messages=messages, temperature=0, random_seed=1) as events:
        for event in events:
            print(event.data.choices[0].delta.content or "", end="", flush=True)
    print(f"\n   receipt {seen['allod-receipt']}")
    return seen["allod-receipt"]


def verify(home: Path, receipt: str, folder: Path) -> None:
    proof = folder / f"{receipt}.tlog-proof"
    run(home, "receipt", "export", receipt, "--out", str(proof))
    # A stranger has the receipt and the public key; no home, no node, no network.
    stranger = subprocess.run(
        [*ALLOD, "receipt", "verify", str(proof), "--key", str(home / "keys" / "ledger.pub")],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(folder)}, check=False,
    )  # fmt: skip
    for line in stranger.stdout.splitlines():
        print(f"   {line}")
    if stranger.returncode:
        raise SystemExit(stranger.stderr or "the receipt did not verify")


def run(home: Path, *words: str, show_errors: bool = False) -> str:
    done = subprocess.run(
        [*ALLOD, *words, "--home", str(home)],
        stdout=subprocess.PIPE, stderr=None if show_errors else subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        if done.stderr:
            sys.stderr.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, words)
    return done.stdout


def allod_json(home: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [*ALLOD, *words, "--json", "--home", str(home)], capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
