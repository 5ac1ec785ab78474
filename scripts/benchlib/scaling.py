"""What grows with connections, providers and routes: measured as series and drawn."""

import json
import re
import resource
import statistics
import subprocess
import time
from pathlib import Path

from . import plot

CONNECTIONS = [1, 4, 16, 64, 256, 1024]
# A proxy has two descriptors for each.
IDLE = [1, 10, 100, 1000, min(10000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 500)]
PROVIDERS = [1, 10, 100, 500]


def provider(home: Path, name, *hosts):
    """A definition of the user's own."""
    (home / f"providers/{name}.json").write_text(json.dumps({
        "schema_version": 1, "name": name, "display_name": name, "auth_type": "api_key", "flow": "api_key", "api_url": [f"https://{host}" for host in hosts],
        "api_key": {"header_name": "Authorization", "header_prefix": "Bearer"}, "export": {f"{name.upper()}_API_KEY": "API_TOKEN"}}))


def load(series, ways, host, seconds):
    """Requests and median latency over the number of connections."""
    for count in CONNECTIONS:
        for way in ways:
            # Long enough that the handshakes at its start are a small part.
            length = max(seconds, count // 100)
            status, out = way.run(f"wrk -t1 -c{count} -d{length}s --latency -H 'Host: {host}' https://{way.address or host}:{way.port}/small")
            rate, latency = re.search(r"Requests/sec:\s+([\d.]+)", out), re.search(r"50%\s+([\d.]+)(us|ms|s)\b", out)
            if status or not rate or not float(rate[1]) or not latency:
                raise SystemExit(f"bench: {count} connections by {way.name} failed:\n{out}")
            milliseconds = float(latency[1]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[2]]
            series.setdefault("throughput", {}).setdefault(way.name, []).append((count, float(rate[1])))
            series.setdefault("latency", {}).setdefault(way.name, []).append((count, milliseconds))


def memory(series, ways, hold, host):
    """The proxy's memory while so many connections are open that had one request each."""
    for count in IDLE:
        for way in ways:
            seconds = 2 + count // 2000
            status, out = way.run(f"{hold} {way.address or host} {way.port} {host} {count} {seconds}")
            if status:
                raise SystemExit(f"bench: {count} idle connections by {way.name} failed:\n{out[-400:]}")
            series.setdefault("memory", {}).setdefault(way.name, []).append((count, way.memory() / 1024))
            time.sleep(seconds + 1)


def start_up(series, home, binary, ordinary, run, login, env, rounds):
    """From exec to exit of `true`, medians. `login` stores a credential; providers stay connected from one number to the next."""
    connected = 0
    (home / "providers").mkdir(parents=True, mode=0o700)
    for count in [0, *PROVIDERS]:
        for number in range(connected, count):
            provider(home, f"made{number}", f"api.made{number}.test")
            login(binary, home, f"made{number}")
        connected = count
        subprocess.run(["chown", "-R", "nobody:nogroup", str(home)], check=True)
        times = []
        for _ in range(10 * rounds):
            begun = time.perf_counter()
            subprocess.run([*ordinary, *run, "--", "true"], env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            times.append((time.perf_counter() - begun) * 1e3)
        # A logarithmic axis has no zero: none connected is drawn at 0.5.
        series.setdefault("start-up", {}).setdefault("authsome relay", []).append((count or 0.5, statistics.median(times)))


def match_time(series, root):
    out = subprocess.run(["cargo", "bench", "--quiet", "--bench", "table"], check=True, capture_output=True, text=True, cwd=root).stdout
    for line in out.splitlines():
        count, exact, pattern = map(float, line.split())
        for name, value in ("exact host", exact), ("pattern", pattern):
            series.setdefault("match", {}).setdefault(name, []).append((count, value))


LABELS = {
    "throughput": ("Requests over connections, HTTP/1.1", "connections", "requests per second"),
    "latency": ("Median latency over connections, HTTP/1.1", "connections", "milliseconds"),
    "memory": ("Memory over idle opened connections", "connections", "MiB (PSS)"),
    "start-up": ("`run -- true` over connected providers", "providers (0 at the left)", "milliseconds"),
    "match": ("One decision by host over routes", "routes", "nanoseconds"),
}


def table(series):
    for name, by_way in series.items():
        title, x, y = LABELS[name]
        print(f"\n{title} ({y})")
        for way, line in by_way.items():
            print(f"  {way:16} " + "  ".join(f"{at:g}: {value:.1f}" for at, value in line))


def draw(series, directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name, by_way in series.items():
        title, x, y = LABELS[name]
        (directory / f"{name}.svg").write_text(plot.svg(title.replace("`", ""), x, y, by_way))
