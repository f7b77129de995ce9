"""A whole node's day inside a network namespace of its own, with one way out that is watched.

`python silent_node.py FOLDER [--unsealed]`, run under `unshare -rnm`. The way out is a virtual cable: default
route and name server lead into it, so whatever anybody in here sends to the outside raises its counter.
Prints one JSON object: what was counted when, and which network each replica saw. With `--unsealed`
bubblewrap is hidden: replicas then stand in the watched namespace, with nothing to hold back what they send.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import httpx
import openai
from mistralai.client import Mistral
from pages import data_url, text_pdf
from PIL import Image, ImageDraw, ImageFont
from running_node import ALLOD, RunningNode, running_node
from served_home import CHAT, EMBED, OCR, served_home

_CABLE = """
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ip link add out type veth peer name world
ip link set world up multicast off
ip link set out up multicast off arp off
ip addr add 198.18.0.2/24 dev out
ip route add default dev out
mount --bind {resolver} /etc/resolv.conf
"""
_LINES = ("The committee met on Thursday and agreed", "that the harbour wall must be repaired",
          "before the winter storms arrive again.", "The cost is shared between the towns",
          "and the work begins within a month.")  # fmt: skip
_HIDE = "mount --bind /dev/null {program}\n"


def main() -> int:
    folder, unsealed = Path(sys.argv[1]), "--unsealed" in sys.argv
    _lay_the_cable(folder, unsealed=unsealed)
    told: dict[str, Any] = {"before": sent()}
    home = served_home(folder, (OCR, CHAT, EMBED))
    if unsealed:  # with the reader that has the largest stack of other people's code
        config = home / "allod.toml"
        config.write_text(config.read_text().replace("rapidocr = false\n", ""))
    with running_node(home) as node:
        node.wait_ready()
        told["said"] = _work(node)
        told["replicas"] = [_network_of(pid) for pid in _replicas(node)]
        time.sleep(12 if unsealed else 1)  # onnxruntime, let loose, reports home seven seconds after its work
    told["after"] = sent()
    with contextlib.suppress(OSError):
        socket.getaddrinfo("example.org", 80)
    told["after_a_lookup"] = sent()
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9))
    told["after_a_packet"] = sent()
    print(json.dumps(told))
    return 0


def _lay_the_cable(folder: Path, *, unsealed: bool) -> None:
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
    script = _CABLE.format(resolver=resolver)
    if unsealed:
        program = subprocess.run(
            ["which", "bwrap"], capture_output=True, text=True, check=True
        ).stdout.strip()
        script += _HIDE.format(program=program)
    subprocess.run(["sh", "-ec", script], check=True, stdout=sys.stderr)


def sent() -> int:
    """Packets that have gone into the cable. /proc/net is of this namespace, also where /sys is not."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if x.strip().startswith("out:"))
    return int(line.split(":")[1].split()[9])


def _work(node: RunningNode) -> dict[str, str | None]:
    """One of each: a page with text, a page that is a picture, a chat, an embedding, what people look at."""
    key = node.key()
    sdk = openai.OpenAI(api_key=key, base_url=f"{node.url}/v1", max_retries=0)
    reader = Mistral(api_key=key, server_url=node.url)
    page: Any = {"type": "document_url", "document_url": data_url(text_pdf("nothing leaves"))}
    text = reader.ocr.process(model=OCR, document=page).pages[0].markdown
    picture = {"type": "image_url", "image_url": data_url(_tiny_print(), "image/png")}
    with node.client(key) as client:
        seen = client.post("/v1/ocr", json={"model": OCR, "document": picture}).json()
    chat = sdk.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "Hello"}])
    vector = sdk.embeddings.create(model=EMBED, input="Hello").data[0].embedding
    assert len(vector) == 384
    _look_at_the_console(node)
    for words in (["status"], ["doctor"], ["run"], ["models", "ls"], ["sites", "ls"], ["receipt", "ls"]):
        subprocess.run([*ALLOD, *words, "--home", str(node.home)], check=False, capture_output=True)
    return {
        "text": text,
        "picture": seen["pages"][0]["allod"]["engine"],
        "chat": chat.choices[0].message.content,
    }


def _look_at_the_console(node: RunningNode) -> None:
    with httpx.Client(base_url=f"{node.url}/console/", follow_redirects=True, trust_env=False) as browser:
        token = re.search(r'name="token" value="([^"]+)"', browser.get("login").text)
        assert token is not None
        shown = browser.post("login", data={"token": token[1], "key": node.admin_key})
        assert (shown.status_code, CHAT in shown.text) == (200, True), shown.url


def _tiny_print() -> bytes:
    """A picture of a page so small that Tesseract is unsure of it: where it may, RapidOCR reads it."""
    page = Image.new("L", (1400, 1100), 255)
    font = ImageFont.truetype("LiberationSerif-Regular.ttf", 36)
    for number, line in enumerate(_LINES):
        ImageDraw.Draw(page).text((120, 120 + 60 * number), line, fill=15, font=font)
    out = io.BytesIO()
    page.resize((308, 242), Image.Resampling.BOX).save(out, "PNG", dpi=(200, 200))
    return out.getvalue()


def _replicas(node: RunningNode) -> list[int]:
    records = (node.home / "run" / "records").glob("*.json")
    return [int(json.loads(record.read_text())["leader"]["pid"]) for record in records]


def _network_of(pid: int) -> dict[str, Any]:
    interfaces = re.findall(r"^\s*(\S+):", Path(f"/proc/{pid}/net/dev").read_text(), re.MULTILINE)
    own = os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    return {"interfaces": interfaces, "own": own}


if __name__ == "__main__":
    sys.exit(main())
