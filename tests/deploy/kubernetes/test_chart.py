"""The Helm chart: rendered by Helm, valid for Kubernetes, true to the product."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancer.discovery.dns import node_name
from edgeserve import __version__
from edgeserve.config.options import OTHERS
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import unknown_variables, variables
from tests.fakes.commands import problems
from tests.test_readme import blocks, shown_lines

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/helm/edgeserve"
TOOLS = os.environ.get("KUBERNETES_DIR", "")
rendered = pytest.mark.skipif(not TOOLS, reason="make check-kubernetes runs it")

PAGE = (ROOT / "docs/kubernetes.md").read_text()

Json = dict[str, Any]

VARIANTS: dict[str, Json] = {
    "default": {},
    "daemon set with GPUs": {
        "nodes": {
            "kind": "DaemonSet",
            "gpus": 2,
            "runtimeClassName": "nvidia",
            "image": {"repository": "edgeserve-cuda", "tag": "1"},
            "models": {"hostPath": "/srv/models"},
            "state": {"hostPath": "/var/lib/edgeserve"},
            "nodeSelector": {"nvidia.com/gpu.present": "true"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        }
    },
    "daemon set that forgets": {"nodes": {"kind": "DaemonSet"}},
    "shared claim": {"nodes": {"models": {"existingClaim": "models"}}},
    "given secrets": {
        "token": {"existingSecret": "fleet"},
        "apiKeys": {"existingSecret": "keys"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "monitored": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}],
            "downloads": False,
            "balancerEgress": [{"ports": [{"protocol": "TCP", "port": 8000}]}],
        },
    },
    "no requests": {"nodes": {"resources": None}, "balancer": {"resources": None}},
    "folders of the machine": {
        "nodes": {"state": {"hostPath": "/srv/state"}, "models": {"hostPath": "/m"}},
        "image": {"digest": f"sha256:{'0' * 64}"},
    },
    "odd folder": {"nodes": {"models": {"hostPath": "/srv/a: b"}}},
    "open": {"networkPolicy": {"enabled": False}, "balancer": {"replicas": 1}},
}


@cache
def _made(values: str, release: str = "demo") -> Json:
    script = Path(__file__).with_name("render.py")
    done = subprocess.run(
        [f"{TOOLS}/bin/python", str(script), str(CHART), values, release],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: Json = json.loads(done.stdout)
    return made


def made(**values: Any) -> Json:
    return _made(json.dumps(values, sort_keys=True))


def manifests(kind: str, **values: Any) -> list[Json]:
    return [each for each in made(**values)["manifests"] if each["kind"] == kind]


def pods(**values: Any) -> Iterator[Json]:
    for each in made(**values)["manifests"]:
        if each["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            yield each["spec"]["template"]["spec"]


@rendered
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_valid_for_kubernetes(variant: str) -> None:
    result = made(**VARIANTS[variant])

    assert result["problems"] == []
    assert result["lint"] == ["icon is recommended"]


@rendered
@pytest.mark.parametrize(
    "values",
    [
        {"nodes": {"kind": "Job"}},
        {"nodes": {"replica": 3}},
        {"nodes": {"models": {"hostPath": "/m", "existingClaim": "m"}}},
        {"balancer": {"replicas": 0}},
        {"apiKeys": {"create": True}},
        {"nodes": {"args": ["--port", "9000"]}},
        {"balancer": {"args": ["--drain-seconds=600"]}},
        {"balancer": {"resources": {"limit": {"memory": "1Gi"}}}},
        {"nodes": {"tolerations": [{"keys": "gpu"}]}},
        {"nodes": {"nodeSelector": {"gpu": True}}},
        {"networkPolicy": {"clients": [{"namespace": "chat"}]}},
        {"imagePullSecrets": ["registry"]},
        {"image": {"digest": "0123"}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: Json) -> None:
    assert "refused" in made(**values)


@rendered
@pytest.mark.parametrize("release", ["a" * 53, f"{'a' * 45}.b", "team.llm"])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    result = _made("{}", release)

    assert result["problems"] == []
    for each in result["manifests"]:
        name = each["metadata"]["name"]
        # A pod of a StatefulSet has its name with a hash in a label.
        longest = 52 if each["kind"] == "StatefulSet" else 63
        assert len(name) <= longest
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


@rendered
def test_the_name_that_balancers_look_up_is_the_one_of_the_headless_service() -> None:
    (service,) = [
        each for each in manifests("Service") if each["spec"].get("clusterIP") == "None"
    ]
    (deployment,) = manifests("Deployment")
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    name = node_name(args[args.index("--node") + 1])
    port = service["spec"]["ports"][0]

    assert name is not None
    assert name.name == f"_{port['name']}._tcp.{service['metadata']['name']}.prod.svc"
    assert port["port"] == NodeSettings.port
    assert service["spec"]["publishNotReadyAddresses"]


@rendered
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pod_has_more_rights_than_it_needs(variant: str) -> None:
    for pod in pods(**VARIANTS[variant]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {each["name"] for each in container["volumeMounts"]} <= {
                *(each["name"] for each in pod["volumes"]),
                "models",
                "state",
            }


@rendered
def test_running_requests_have_their_time_before_a_pod_is_killed() -> None:
    for pod in pods(drainSeconds=300):
        (container,) = pod["containers"]
        leaves = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        env = {each["name"]: each.get("value") for each in container["env"]}

        assert env["EDGESERVE_DRAIN_SECONDS"] == "300"
        needed = 300 + leaves.get("seconds", 0) + 10
        assert pod["terminationGracePeriodSeconds"] >= needed


@rendered
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_pods_are_told_are_settings_of_the_product(variant: str) -> None:
    for pod in pods(**VARIANTS[variant]):
        (container,) = pod["containers"]
        given = {each["name"]: "1" for each in container["env"]}
        known = {*variables(BalancerSettings), *variables(NodeSettings), *OTHERS}

        assert list(unknown_variables(given, known)) == []
        assert problems(shlex.join(["edgeserve", *container["args"]])) == []


@rendered
def test_probes_ask_the_ports_in_the_way_that_they_answer() -> None:
    balancer, node = pods()
    for pod, scheme, port in (
        (balancer, None, BalancerSettings.port),
        (node, "HTTPS", NodeSettings.port),
    ):
        (container,) = pod["containers"]
        probe = container["readinessProbe"]["httpGet"]

        assert probe["path"] == "/health"
        assert probe.get("scheme") == scheme
        assert container["ports"][0]["containerPort"] == port


@rendered
def test_two_nodes_on_one_machine_never_share_a_state_folder() -> None:
    *_, node = pods(nodes={"state": {"hostPath": "/srv/state"}})
    env = {each["name"]: each for each in node["containers"][0]["env"]}

    assert env["EDGESERVE_STATE_DIR"]["value"].endswith("/$(EDGESERVE_NODE_NAME)")
    field = env["EDGESERVE_NODE_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.name"
    assert [*env].index("EDGESERVE_NODE_NAME") < [*env].index("EDGESERVE_STATE_DIR")


@rendered
def test_an_image_is_named_by_its_digest_where_there_is_one() -> None:
    shared, own = (f"sha256:{digit * 64}" for digit in "01")
    balancer, node = pods(image={"digest": shared})
    _, cuda = pods(
        image={"digest": shared},
        nodes={"image": {"repository": "cuda", "digest": own}},
    )
    _, tagged = pods(image={"digest": shared}, nodes={"image": {"tag": "2"}})

    def image(pod: Json) -> str:
        return str(pod["containers"][0]["image"])

    assert image(balancer) == image(node) == f"edgeserve@{shared}"
    assert image(cuda) == f"cuda@{own}"
    assert image(tagged) == "edgeserve:2"


@rendered
def test_gpus_are_requested_beside_the_other_limits() -> None:
    *_, node = pods(nodes={"gpus": 2})

    limits = node["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "8Gi", "nvidia.com/gpu": 2}


VALUES = [each for each in blocks(PAGE, "yaml") if "# values.yaml" in each]
POOL = next(each for each in blocks(PAGE, "yaml") if "kind: InferencePool" in each)


@rendered
def test_the_pool_of_the_documentation_is_the_balancers() -> None:
    (balancer,) = manifests("Deployment")
    pool = yaml.safe_load(POOL)["spec"]
    labels = balancer["spec"]["template"]["metadata"]["labels"]
    (container,) = balancer["spec"]["template"]["spec"]["containers"]

    wanted = {**pool["selector"]["matchLabels"], "app.kubernetes.io/instance": "demo"}
    assert wanted.items() <= labels.items()
    assert pool["targetPorts"] == [
        {"number": each["containerPort"]} for each in container["ports"]
    ]


@rendered
@pytest.mark.parametrize("values", VALUES)
def test_values_of_the_documentation_are_valid(values: str) -> None:
    assert _made(values)["problems"] == []


def test_commands_of_the_documentation_exist_with_their_flags() -> None:
    text = PAGE.replace("\\\n", "")
    shown = re.findall(
        r"(?<![-/.\w])edgeserve [a-z][^`\n]*", "\n".join(shown_lines(text))
    )

    assert len(shown) >= 4
    assert [problem for line in shown for problem in problems(line)] == []


@rendered
def test_flags_of_helm_in_the_documentation_are_values() -> None:
    given = re.findall(r"--set ([\w.]+)=(\S+)", PAGE)
    values: Json = {}
    for name, text in given:
        section, key = name.split(".")
        values.setdefault(section, {})[key] = int(text) if text.isdigit() else text

    assert len(given) >= 2
    assert made(**values)["problems"] == []


def test_the_chart_has_the_version_of_the_product() -> None:
    chart = (CHART / "Chart.yaml").read_text()

    assert f'appVersion: "{__version__}"' in chart
