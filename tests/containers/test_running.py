"""Node and balancer with a container's limits."""

from __future__ import annotations

import json
import threading
import urllib.request

from tests.containers.podman import QUESTION, Container, Pod, until
from tests.patience import PATIENCE


def serving(pod: Pod) -> tuple[Container, Container]:
    """Start both, and wait until the node's model serves."""
    balancer, node = pod.balancer(), pod.node()
    until(lambda: "serves smollm2" in balancer.log, lambda: balancer.log + node.log)
    return balancer, node


def test_an_answer_passes_two_containers(pod: Pod) -> None:
    balancer, _ = serving(pod)

    answer = balancer.answer()

    assert answer["choices"][0]["message"]["content"]


def test_a_node_plans_with_the_memory_of_its_container(pod: Pod) -> None:
    _, node = serving(pod)

    planned = node.exec("edgeserve", "node", "plan")

    assert planned.returncode == 0, planned.stderr
    assert "of 1 GiB (control group's limit) free" in planned.stdout


def test_a_model_that_does_not_fit_is_refused_before_the_kernel_kills(pod: Pod) -> None:
    balancer = pod.balancer()
    node = pod.node(memory="160m")
    until(lambda: "joined" in balancer.log, lambda: balancer.log + node.log)

    planned = node.exec("edgeserve", "node", "plan")

    assert planned.returncode == 1
    assert "may be used" in planned.stdout
    assert node.is_healthy()
    assert "serves smollm2" not in node.log


def test_the_health_check_of_the_image_knows_both(pod: Pod) -> None:
    balancer, node = serving(pod)

    assert balancer.is_healthy()
    assert node.is_healthy()


def test_the_doctor_finds_nothing_wrong_with_a_container(pod: Pod) -> None:
    _, node = serving(pod)

    key = "EDGESERVE_API_KEY_FILE=/run/secrets/api-keys"
    found = node.exec("env", key, "edgeserve", "doctor", "--json")

    problems = [each for each in json.loads(found.stdout) if each["state"] == "problem"]
    assert problems == []
    assert found.returncode == 0


def test_nothing_is_written_outside_of_volumes(pod: Pod) -> None:
    _, node = serving(pod)
    writing = node.exec("sh", "-c", "touch /x || touch /opt/edgeserve/x")
    mode = node.exec("sh", "-c", "grep -hE 'NoNewPrivs|CapBnd' /proc/1/status; id -u")

    assert "Read-only file system" in writing.stderr
    assert mode.stdout.split() == [
        *("CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "43210"),
    ]


def test_running_requests_finish_when_the_containers_are_stopped(pod: Pod) -> None:
    balancer, node = serving(pod)
    body = {**QUESTION, "max_tokens": 256, "stream": True, "ignore_eos": True}
    statuses = list[int]()
    with urllib.request.urlopen(balancer.post(body), timeout=PATIENCE) as stream:
        seen = stream.readline()
        stopping = [
            threading.Thread(target=lambda each=each: statuses.append(each.stop()))
            for each in (balancer, node)
        ]
        for each in stopping:
            each.start()
        seen += stream.read()
        for each in stopping:
            each.join()

    assert b'"finish_reason":"length"' in seen
    assert seen.endswith(b"data: [DONE]\n\n")
    assert statuses == [0, 0]
