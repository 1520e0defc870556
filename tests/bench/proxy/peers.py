"""The compared proxies: installed, configured and started, on one core each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.tokens import TOKEN

Command = Callable[[int, Sequence[int], Path], list[str]]
"""Port to listen on, ports of the upstreams, a folder for files → argument list."""

ROUTERS = ("vllm-router==0.1.17", "sglang-router==0.3.2")
ROUTERS_NEED = ("orjson", "fastapi", "uvicorn", "setproctitle", "requests", "aiohttp")
LONGEST_SECONDS = 600
"""No proxy gives up a request that waits for a slow machine."""

CACHE = Path.home() / ".cache" / "edgeserve-bench-proxy"


class Missing(Exception):
    """A peer cannot be had here; the sentence says why."""


@dataclass(frozen=True)
class Peer:
    """One contestant."""

    name: str
    command: Command
    encrypted: bool = False
    """Whether it gets the encrypted ports of the upstreams."""


def nginx(
    port: int, upstreams: Sequence[int], folder: Path, balance: str = ""
) -> list[str]:
    """Configure nginx; `balance` is the directive that chooses, if not in turns."""
    servers = "".join(f"server 127.0.0.1:{each};" for each in upstreams)
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 16384;
        pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 8192; }}
        http {{
          access_log off; keepalive_requests 100000000; client_max_body_size 64m;
          client_body_temp_path {folder}; proxy_temp_path {folder};
          fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
          upstream u {{
            {balance} {servers} keepalive 2048; keepalive_requests 100000000;
          }}
          server {{
            listen 127.0.0.1:{port} backlog=4096;
            location / {{
              proxy_pass http://u; proxy_http_version 1.1; proxy_buffering off;
              proxy_read_timeout {LONGEST_SECONDS}s;
              proxy_set_header Connection "";
            }}
          }}
        }}""")
    return [_found("nginx"), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]


def haproxy(
    port: int,
    upstreams: Sequence[int],
    folder: Path,
    balance: str = "roundrobin",
    options: str = "",
    retry_on: str = "conn-failure",
) -> list[str]:
    """Configure HAProxy; `options` are those of each server."""
    servers = "\n".join(
        f" server s{each} 127.0.0.1:{each} {options}" for each in upstreams
    )
    (folder / "haproxy.cfg").write_text(f"""
global
 nbthread 1
 maxconn 8192
defaults
 mode http
 option http-no-delay
 http-reuse always
 timeout connect 2s
 timeout client {LONGEST_SECONDS}s
 timeout server {LONGEST_SECONDS}s
 timeout queue {LONGEST_SECONDS}s
listen proxy
 bind 127.0.0.1:{port} backlog 4096
 balance {balance}
 retry-on {retry_on}
{servers}
""")
    return [_found("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"]


def vllm_router(port: int, upstreams: Sequence[int], _: Path) -> list[str]:
    return [router("vllm-router"), *_routing(port, upstreams)]


def sglang_router(port: int, upstreams: Sequence[int], _: Path) -> list[str]:
    python = router("python")
    return [python, "-m", "sglang_router.launch_router", *_routing(port, upstreams)]


def _routing(port: int, upstreams: Sequence[int]) -> list[str]:
    urls = [f"http://127.0.0.1:{each}" for each in upstreams]
    return [
        *("--host", "127.0.0.1", "--port", str(port), "--worker-urls", *urls),
        *("--policy", "round_robin", "--max-concurrent-requests", "4096"),
        *("--log-level", "error", "--prometheus-port", str(port + 1)),
    ]


VLLM = ("vllm-router",)
SGLANG = ("python", "-m", "sglang_router.launch_router")


def cache_aware(
    program: Sequence[str], port: int, upstreams: Sequence[int], *flags: str
) -> list[str]:
    """Return a router that sends a prompt to where its beginning went."""
    urls = [f"http://127.0.0.1:{each}" for each in upstreams]
    return [
        *(router(program[0]), *program[1:], "--host", "127.0.0.1"),
        *("--port", str(port), "--worker-urls", *urls),
        *("--policy", "cache_aware", *flags),
        *("--log-level", "error", "--prometheus-port", str(port + 1)),
    ]


def bare(kind: str) -> Command:
    def command(port: int, upstreams: Sequence[int], _: Path) -> list[str]:
        module = ["-m", "tests.bench.proxy.bare", kind, str(port)]
        return [sys.executable, *module, *map(str, upstreams)]

    return command


def encrypted(port: int, upstreams: Sequence[int], folder: Path) -> list[str]:
    """Run the balancer with a fleet token: TLS 1.3 and a proof for each connection."""
    (folder / "token").write_text(TOKEN)
    flags = ("--token-file", str(folder / "token"), "--host", "127.0.0.1")
    return [*balancer(port, upstreams, folder), *flags]


def balancer(port: int, upstreams: Sequence[int], folder: Path) -> list[str]:
    nodes = [
        flag for each in upstreams for flag in ("--node", f"http://127.0.0.1:{each}")
    ]
    return [
        *(sys.executable, "-m", "edgeserve", "balancer", "start", "--no-discover"),
        *("--port", str(port), "--queue", "4096", "--state-dir", str(folder)),
        *("--log-level", "warning", *nodes),
    ]


PEERS = (
    Peer("nginx", nginx),
    Peer("HAProxy", haproxy),
    Peer("vllm-router", vllm_router),
    Peer("sglang-router", sglang_router),
    Peer("aiohttp proxy", bare("plain")),
    Peer("EdgeServe, bare relay", bare("fast")),
    Peer("EdgeServe, balancer", balancer),
    Peer("EdgeServe, encrypted", encrypted, encrypted=True),
)


def install() -> None:
    """Fetch what is missing, as far as this machine allows."""
    wanted = [each for each in ("nginx", "haproxy", "wrk") if not _path(each)]
    if wanted and shutil.which("apt-get"):
        packages = [each.replace("nginx", "nginx-light") for each in wanted]
        _try(["apt-get", "update", "-qq"])
        _try(["apt-get", "install", "-y", "-qq", *packages])
    if not (CACHE / "bin" / "vllm-router").exists():
        venv.create(CACHE, with_pip=True)
        pip = [str(CACHE / "bin" / "pip"), "install", "--quiet"]
        _try([*pip, "--no-deps", *ROUTERS])
        _try([*pip, *ROUTERS_NEED])


def _try(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout or "no reason given").strip()
        print(f"`{' '.join(command)}` failed: {said.splitlines()[-1]}")


def _path(program: str) -> str | None:
    return shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin")


def _found(program: str) -> str:
    path = _path(program)
    if path is None:
        raise Missing(f"{program} is not installed and could not be")
    return path


def router(program: str) -> str:
    if not (CACHE / "bin" / "vllm-router").exists():
        raise Missing("the routers' wheels could not be installed")
    return str(CACHE / "bin" / program)
