"""nginx, HAProxy and Caddy with the shipped configurations, on ports found free."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeserve.security.certificates import new_certificate
from node.engines.process import free_port
from tests.patience import PATIENCE

SHIPPED = Path(__file__).parents[3] / "deploy" / "proxies"
SEARCHED = "/usr/sbin:/usr/bin:/usr/local/bin"
BALANCERS = ("192.168.1.20:8080", "192.168.1.21:8080")
"""The addresses in the shipped files."""

PROGRAMS = ("nginx", "haproxy", "caddy")


@dataclass(frozen=True)
class Proxy:
    """A running proxy; `trust` has its certificate."""

    name: str
    url: str
    trust: ssl.SSLContext


def program(name: str) -> str:
    """Return the program's path; the test is skipped where it is not installed."""
    path = shutil.which(name, path=SEARCHED)
    if path is None:
        pytest.skip(f"{name} is not installed: make check-proxies")
    return path


def configured(text: str, changes: Sequence[tuple[str, str]]) -> str:
    """Replace what a reader of the file has to replace; each place must be there."""
    for old, new in changes:
        assert old in text, f"the shipped file lacks {old!r}"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, balancers: Sequence[str]) -> list[str]:
    site = configured(
        (SHIPPED / "nginx.conf").read_text(),
        [
            *zip(BALANCERS, balancers, strict=True),
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/ssl/edgeserve/cert.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/edgeserve/key.pem", f"{folder}/cert.pem"),
        ],
    )
    (folder / "site.conf").write_text(site)
    temporary = " ".join(
        f"{each}_temp_path {folder}/temp;"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/site.conf; }}\n"
    )
    return ["-c", f"{folder}/nginx.conf", "-e", "stderr"]


def haproxy(folder: Path, port: int, balancers: Sequence[str]) -> list[str]:
    text = configured(
        (SHIPPED / "haproxy.cfg").read_text(),
        [
            *zip(BALANCERS, balancers, strict=True),
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("/etc/haproxy/edgeserve.pem", f"{folder}/cert.pem"),
        ],
    )
    (folder / "haproxy.cfg").write_text(text)
    return ["-db", "-f", f"{folder}/haproxy.cfg"]


def caddy(folder: Path, port: int, balancers: Sequence[str]) -> list[str]:
    text = configured(
        (SHIPPED / "Caddyfile").read_text(),
        [
            *zip(BALANCERS, balancers, strict=True),
            ("llm.example {", f"https://localhost:{port} {{\n\tbind 127.0.0.1"),
            ("/etc/caddy/cert.pem", f"{folder}/cert.pem"),
            ("/etc/caddy/key.pem", f"{folder}/cert.pem"),
        ],
    )
    quiet = "{\n\tadmin off\n\tauto_https off\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(quiet + text)
    return ["run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


CONFIGURE = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


@contextlib.contextmanager
def proxy(name: str, folder: Path, balancers: Sequence[str]) -> Generator[Proxy]:
    """Run a proxy in front of two addresses, `host:port`, for the block."""
    path, port = program(name), free_port()
    certificate = new_certificate("localhost", ("localhost",))
    (folder / "cert.pem").write_bytes(certificate.pem)
    argv = CONFIGURE[name](folder, port, balancers)
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([path, *argv], stdout=log, stderr=log, env=env)
    try:
        _await_port(port, child, folder / "log")
        trust = ssl.create_default_context(cafile=folder / "cert.pem")
        yield Proxy(name, f"https://localhost:{port}", trust)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_port(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
