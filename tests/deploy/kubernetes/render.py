"""Render the chart by Helm's own code, and validate it; run by an environment apart.

`python render.py CHART VALUES RELEASE` prints JSON: what Helm's linter says, the
manifests, and what Kubernetes releases have against them. The values are YAML.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

import yaml

CUSTOM = ("monitoring.coreos.com/",)
"""Begins the versions of objects that are not of Kubernetes itself."""


def main() -> None:
    """Render and validate."""
    helm: Any = importlib.import_module("helm_python")
    folder, values, name = sys.argv[1], yaml.safe_load(sys.argv[2]), sys.argv[3]
    lint = [each["error"] for each in helm.lint(folder)["messages"]]
    try:
        with helm.Chart.load(folder) as chart:
            chart.validate_schema(values)
            texts = chart.render(values, name=name, namespace="prod")
    except helm.HelmError as error:
        print(json.dumps({"refused": str(error)}))
        return
    manifests = [
        each
        for name, text in texts.items()
        if not name.endswith(".txt")
        for each in yaml.safe_load_all(text)
        if each
    ]
    problems = [said for each in manifests for said in _problems(each)]
    print(json.dumps({"lint": lint, "manifests": manifests, "problems": problems}))


def _problems(manifest: dict[str, Any]) -> list[str]:
    validate: Any = importlib.import_module("kubernetes_validate")
    if manifest["apiVersion"].startswith(CUSTOM):
        return []
    releases = ("1.30", re.sub(r"\.\d+$", "", validate.latest_version()))
    found = list[str]()
    for release in releases:
        try:
            validate.validate(manifest, release, strict=True)
        except validate.ValidationError as error:
            place = f"{manifest['kind']} {'.'.join(map(str, error.path))}"
            found.append(f"{release}: {place}: {error.message}")
    return found


if __name__ == "__main__":
    main()
