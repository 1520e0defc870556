"""Units: the descriptions of services that systemd reads. Pure.

`deploy/` has those of the whole machine; a test holds them to what is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeserve.cli.service.places import Places, Role, unit_name

WHAT = {
    "node": (
        "The agent of one machine. `edgeserve service install` writes this file.",
        "EdgeServe node: serves this machine's models",
    ),
    "balancer": (
        "The endpoint of clients. `edgeserve service install` writes this file.",
        "EdgeServe balancer: one endpoint for the fleet",
    ),
}

NETWORK = ("After=network-online.target", "Wants=network-online.target")

UNLIMITED = (
    "# No limit on restarts: a machine that cannot serve now may be able to later.",
    "StartLimitIntervalSec=0",
)

TOKEN = (
    "# Root owns the secrets; the service gets copies that only it can read.",
    "LoadCredential=token:{config}/token",
    "Environment=EDGESERVE_TOKEN_FILE=%d/token",
)
KEYS = (
    "LoadCredential=api-keys:{config}/api-keys",
    "Environment=EDGESERVE_BALANCER_API_KEY_FILE=%d/api-keys",
)

LIFE = {
    "node": (
        "# SIGTERM drains for `drain_seconds` (30), then the engines stop. Only the"
        " agent gets",
        "# the signal: it ends its engines itself.",
        "KillMode=mixed",
        "TimeoutStopSec=60",
        "Restart=on-failure",
        "RestartSec=5",
        "# Exit status 2 is a wrong setting; a restart does not help.",
        "RestartPreventExitStatus=2",
        "# The agent restarts an engine that the kernel kills for its memory.",
        "OOMPolicy=continue",
    ),
    "balancer": (
        "# SIGTERM drains for `drain_seconds` (30).",
        "KillMode=mixed",
        "TimeoutStopSec=45",
        "Restart=on-failure",
        "RestartSec=2",
        "# Exit status 2 is a wrong setting; a restart does not help.",
        "RestartPreventExitStatus=2",
        "LimitNOFILE=65536",
    ),
}

BOUNDED = (
    "LockPersonality=yes",
    "NoNewPrivileges=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "UMask=0077",
)
"""What a manager without privileges can hold a service to as well."""

CONFINED = (
    "CapabilityBoundingSet=",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectSystem=strict",
)
"""What only the manager of the whole machine can do."""

NO_JIT = ("MemoryDenyWriteExecute=yes",)
"""Not for nodes: drivers of GPUs compile for them."""

NO_DEVICES = ("PrivateDevices=yes", "ProtectProc=invisible")
"""Not for nodes: they use GPUs, and read what else runs on the machine."""


def unit(role: Role, places: Places, flags: Sequence[str] = ()) -> str:
    """Return the text of a unit; `flags` are added to its command."""
    comment, description = WHAT[role]
    system = places.scope == "system"
    command = " ".join((quoted(str(places.command)), role, "start", *flags))
    sections = (
        (f"# {comment}",),
        (
            "[Unit]",
            f"Description={description}",
            *(NETWORK if system else ()),
            *UNLIMITED,
        ),
        (
            "[Service]",
            "Type=exec",
            f"ExecStart={command}",
            *_environment(role, places),
        ),
        LIFE[role],
        _hardening(role, system=system),
        ("[Install]", f"WantedBy={'multi-user' if system else 'default'}.target"),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _environment(role: Role, places: Places) -> Iterator[str]:
    if places.scope == "user":
        for name, value in sorted(places.variables.items()):
            yield f"Environment={quoted(f'{name}={value}')}"
        return
    yield f"Environment=EDGESERVE_CONFIG_DIR={places.config}"
    yield f"Environment=EDGESERVE_STATE_DIR=%S/{unit_name(role)}"
    if role == "node":
        yield f"Environment=EDGESERVE_MODELS_DIR={places.models}"
    for line in TOKEN if role == "node" else (*TOKEN, *KEYS):
        yield line.format(config=places.config)
    yield f"StateDirectory={unit_name(role)}"
    yield "DynamicUser=yes"
    if role == "node":
        yield "# GPUs, and the sensors of a Raspberry Pi."
        yield "SupplementaryGroups=video render"


def _hardening(role: Role, *, system: bool) -> tuple[str, ...]:
    """Return it sorted; the sets need not be read by those who read a unit."""
    lines: list[str] = [*BOUNDED]
    if system:
        lines += CONFINED
    if role == "balancer":
        lines += (*NO_JIT, *(NO_DEVICES if system else ()))
    return tuple(sorted(lines))


def quoted(word: str) -> str:
    """Return a word as systemd reads it: `%`, quotes and blanks mean themselves."""
    plain = word.replace("%", "%%")
    if not set(plain) & set(" \t\"'\\"):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
