"""What the path costs, as ratios against nginx in one run: both proxy to the same model server, on the same
core.

Both do the same socket work: TCP with keep-alive towards the client, a kept Unix socket towards the model
server. nginx does nothing else (no access log, no key, no receipt), which makes it the floor; a row with an
access log is there for information. The front also waits for its disk, which nginx does not: how long one
fdatasync takes here is a row, and so is what the front does with its home in memory (`--memory`), where only
the processor counts.

The proxy under test runs on core 0; the load (wrk, or `sse.py load`) and the model server share core 1.
Rounds are interleaved; a figure is the best of its rounds with the median beside it, and a ratio is best
against best. CPU is what the scheduler charged to the proxy's own processes from /proc.
`ALLOD_BENCH_LITELLM=/path/to/venv` adds a row for LiteLLM's proxy.

    python bench/front.py [--rounds 5] [--seconds 2] [--json]
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests" / "servers")]

from front_home import KEY, Home, free_port, wait_for  # noqa: E402

_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a" * 160}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
    }
).ljust(364)  # fmt: skip


class Proxy:
    def __init__(self, name: str, port: int, pids: Callable[[], list[int]], key: str) -> None:
        self.name = name
        self.port = port
        self.pids = pids
        self.key = key

    def cpu_s(self) -> float:
        """User and system time of all threads, in the scheduler's nanoseconds: a clock tick is 10 ms."""
        total = 0
        for pid in self.pids():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
        return total / 1e9

    def own_mb(self) -> float:
        """Without mapped files: how much of the spool's segment is mapped in depends on where its end is."""
        return (
            sum(
                int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
                for pid in self.pids()
            )
            / 1024
        )

    def rss_mb(self) -> float:
        return (
            sum(
                int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
                for pid in self.pids()
            )
            / 1024
        )


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.started: list[subprocess.Popen] = []
        self.home = Home(root)
        self.home.service("m", self.home.replica("m1"))
        self.home.service("s", self.home.replica("s1"))

    def run(self, core: int, *argv: str, **kw: object) -> subprocess.Popen:
        process = subprocess.Popen(["taskset", "-c", str(core), *argv], **kw)
        self.started.append(process)
        return process

    def nginx(self, role: str, core: int, listen: str, locations: str) -> subprocess.Popen:
        text = (HERE / "nginx.conf").read_text()
        for key, value in {
            "DIR": str(self.root),
            "ROLE": role,
            "USER": getpass.getuser(),
            "LISTEN": listen,
            "LOCATIONS": locations,
        }.items():
            text = text.replace(f"@{key}@", value)
        conf = self.root / f"{role}.conf"
        conf.write_text(text)
        return self.run(core, "nginx", "-c", str(conf))

    def start(self) -> list[Proxy]:
        model = self.home.run / "m1.sock"
        self.nginx("model", 1, f"unix:{model}", f"location / {{ return 200 '{_ANSWER}'; }}")
        self.run(1, sys.executable, str(HERE / "sse.py"), "serve", str(self.home.run / "s1.sock"))
        wait_for(lambda: model.exists() and (self.home.run / "s1.sock").exists())
        port = free_port()
        keep = 'proxy_http_version 1.1; proxy_set_header Connection "";'
        proxy = self.nginx(
            "proxy", 0, f"127.0.0.1:{port}",
            f"location / {{ proxy_pass http://model; {keep} }} "
            f"location /stream {{ proxy_buffering off; {keep} "
            f"proxy_pass http://stream/v1/chat/completions; }}",
        )  # fmt: skip
        logged = free_port()
        log = self.nginx(
            "logged", 0, f"127.0.0.1:{logged}",
            f"access_log {self.root}/access.log; location / {{ proxy_pass http://model; {keep} }}",
        )  # fmt: skip
        self.logged = Proxy("nginx", logged, lambda: [log.pid, *_children(log.pid)], "none")
        self.home.start()
        assert self.home.front is not None
        front = self.home.front.pid
        subprocess.run(["taskset", "-acp", "0", str(front)], check=True, capture_output=True)
        time.sleep(0.5)
        proxies = [
            Proxy("nginx", port, lambda: [proxy.pid, *_children(proxy.pid)], "none"),
            Proxy("allod", self.home.port, lambda: [front], KEY),
        ]
        if venv := os.environ.get("ALLOD_BENCH_LITELLM"):
            proxies.append(self.litellm(Path(venv)))
        return proxies

    def litellm(self, venv: Path) -> Proxy:
        """One worker, no database, the same answer over loopback TCP (it has no Unix-socket upstream)."""
        upstream, port = free_port(), free_port()
        self.nginx("model-tcp", 1, f"127.0.0.1:{upstream}", f"location / {{ return 200 '{_ANSWER}'; }}")
        config = self.root / "litellm.yaml"
        config.write_text(
            f"model_list:\n  - model_name: m\n    litellm_params: {{model: openai/m, api_key: none, "
            f"api_base: 'http://127.0.0.1:{upstream}/v1'}}\ngeneral_settings: {{master_key: sk-bench}}\n"
        )
        env = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "DO_NOT_TRACK": "1",
        }
        process = self.run(
            0, str(venv / "bin" / "litellm"), "--config", str(config), "--port", str(port),
            "--host", "127.0.0.1",
            "--telemetry", "False", env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        proxy = Proxy("litellm", port, lambda: [process.pid, *_children(process.pid)], "sk-bench")
        wait_for(lambda: _answers(proxy), 120)
        return proxy

    def stop(self) -> None:
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            process.wait(10)
        self.home.stop()

    def fdatasync_us(self) -> float:
        """The median time of one small fdatasync into a preallocated file, where the spool is."""
        path, times = self.root / "sync", []
        with path.open("wb") as f:
            os.posix_fallocate(f.fileno(), 0, 1 << 20)
            os.fsync(f.fileno())
            for n in range(100):
                os.pwrite(f.fileno(), b"x" * 2000, n * 2000)
                began = time.perf_counter()
                os.fdatasync(f.fileno())
                times.append(time.perf_counter() - began)
        path.unlink()
        return statistics.median(times) * 1e6

    def forget_receipts(self) -> None:
        """Stands in for the control process: removes the segments that the front has left behind."""
        for folder in (self.root / "spool").iterdir():
            for path in sorted(folder.glob("*.seg"))[:-3]:
                path.unlink()

    def wrk(self, proxy: Proxy, connections: int, seconds: float, prompt: int) -> tuple[float, float]:
        """(requests per second, proxy CPU microseconds per request). Fails on any answer that is not 200."""
        lua = self.root / f"{proxy.name}-{prompt}.lua"
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * prompt}]})
        lua.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{body}'\n"
            f"wrk.headers = {{['Content-Type']='application/json', ['Authorization']='Bearer {proxy.key}'}}\n"
        )
        before = proxy.cpu_s()
        out = subprocess.run(
            ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(lua),
             f"http://127.0.0.1:{proxy.port}/v1/chat/completions"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        cpu = proxy.cpu_s() - before
        assert "Non-2xx" not in out, out
        assert "Socket errors" not in out, out
        count = int(re.search(r"(\d+) requests in", out)[1])
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
        return rate, cpu / count * 1e6

    def sse(self, proxy: Proxy, streams: int) -> dict[str, float]:
        before = proxy.cpu_s()
        path = "/stream" if proxy.name == "nginx" else "/v1/chat/completions"
        out = subprocess.run(
            ["taskset", "-c", "1", sys.executable, str(HERE / "sse.py"), "load", "127.0.0.1", str(proxy.port),
             str(streams), proxy.key, path],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        seen = json.loads(out)
        assert seen["complete"] == streams, seen
        assert seen["frames"] == streams * 64, seen
        seen["cpu_us_per_frame"] = (proxy.cpu_s() - before) / seen["frames"] * 1e6
        return seen


def _answers(proxy: Proxy) -> bool:
    import http.client

    try:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
        connection.request("POST", "/v1/chat/completions", '{"model":"m","messages":[]}',
                           {"Authorization": f"Bearer {proxy.key}",
                            "Content-Type": "application/json"})  # fmt: skip
        return connection.getresponse().status == 200
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rounds(count: int, proxies: list[Proxy], measure: Callable[[Proxy], float | tuple[float, float]]) -> dict:
    seen: dict[str, list] = {p.name: [] for p in proxies}
    for _ in range(count):
        for proxy in proxies:
            seen[proxy.name].append(measure(proxy))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--memory", action="store_true", help="with the home in /dev/shm: no disk to wait for"
    )
    parser.add_argument("--soak", type=int, default=200_000, help="requests for the memory figure; 0: none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if args.memory else None) as folder:
        bench = Bench(Path(folder))
        try:
            rows = measure_all(bench, args)
        finally:
            bench.stop()
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['what']:44} {row['value']:>10.2f} {row['unit']:8} {row['detail']}")


def measure_all(bench: Bench, args: argparse.Namespace) -> list[dict]:
    proxies = bench.start()
    seconds = int(args.seconds)
    rows: list[dict] = []

    def row(what: str, value: float, unit: str, detail: str = "") -> None:
        rows.append({"what": what, "value": value, "unit": unit, "detail": detail})
        if not args.json:
            print(f"  … {what}: {value:.2f} {unit} {detail}", file=sys.stderr, flush=True)

    nginx, front = proxies[0], proxies[1]
    row("front idle memory", front.rss_mb(), "MB", "target <= 60")
    row("one fdatasync where the spool is", bench.fdatasync_us(), "us", "median, while nothing runs")
    for connections, prompt, of in ((8, 100, "cpu"), (64, 100, "rps"), (16, 100_000, "cpu")):
        label = f"{'100 kB' if prompt > 1000 else '0.2 kB'} prompt c{connections}"
        seen = rounds(
            args.rounds, [nginx, front], lambda p, c=connections, n=prompt: bench.wrk(p, c, seconds, n)
        )
        for proxy in (nginx, front):
            rates, cpus = zip(*seen[proxy.name], strict=True)
            row(f"{label}: {proxy.name} CPU", min(cpus), "us/req", f"median {statistics.median(cpus):.1f}")
            row(f"{label}: {proxy.name} rate", max(rates), "req/s", f"median {statistics.median(rates):.0f}")
        if of == "cpu":
            ratio = min(c for _, c in seen["allod"]) / min(c for _, c in seen["nginx"])
            row(f"{label}: CPU against nginx", ratio, "x", "target <= 2.0")
            if prompt < 1000:
                logged = min(bench.wrk(bench.logged, connections, seconds, prompt)[1] for _ in range(3))
                row(f"{label}: nginx CPU with an access log", logged, "us/req", "for information")
        else:
            ratio = max(r for r, _ in seen["allod"]) / max(r for r, _ in seen["nginx"])
            row(f"{label}: rate against nginx", ratio, "x", "target >= 0.6")
            if len(proxies) > 2:
                theirs = max(bench.wrk(proxies[2], connections, seconds, prompt)[0] for _ in range(2))
                row("litellm rate c64", theirs, "req/s")
                row("rate against litellm", max(r for r, _ in seen["allod"]) / theirs, "x", "target >= 100")
    seen = rounds(args.rounds, [nginx, front], lambda p: bench.sse(p, 32)["cpu_us_per_frame"])
    for proxy in (nginx, front):
        row(f"stream: {proxy.name} CPU", min(seen[proxy.name]), "us/frame")
    row("stream: CPU against nginx", min(seen["allod"]) / min(seen["nginx"]), "x", "target <= 1.3")
    many = bench.sse(front, 512)
    row("512 streams: complete", many["complete"], "streams", f"{many['frames']} frames, none lost")
    if args.soak:
        soak(bench, front, args.soak, row)
    return rows


def soak(bench: Bench, front: Proxy, count: int, row: Callable[..., None]) -> None:
    done, marks = 0, []
    while done < count:
        rate, _ = bench.wrk(front, 64, 2, 100)
        done += int(rate * 2)
        bench.forget_receipts()
        marks.append(front.own_mb())
    row(
        "own memory after the soak",
        marks[-1],
        "MB",
        f"{done} requests; after the first 2 s {marks[0]:.1f} MB",
    )


if __name__ == "__main__":
    main()
