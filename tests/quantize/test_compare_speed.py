import json
import sys
from pathlib import Path

import pytest

from quantize.compare import bench
from quantize.worker.messages import Speed

JOB = Speed(model="m.gguf", prompt=128, answer=32, repeats=2, threads=3)


def a_run(n_prompt: int, n_gen: int, *rates: float) -> dict[str, object]:
    return {
        "build_commit": "0c1e57098",
        "n_threads": 3,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "samples_ts": rates,
        "anything": "else",
    }


def a_tool(folder: Path, body: str) -> Path:
    path = folder / "llama-bench"
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    path.chmod(0o755)
    return path


def test_its_figures_are_read(tmp_path: Path) -> None:
    runs = [a_run(128, 0, 200.123, 210.0), a_run(0, 32, 50.0, 51.0)]
    tool = a_tool(tmp_path, f"print({json.dumps(runs)!r})")

    found = bench(tool, JOB)

    assert found is not None
    assert found.prefill == (200.12, 210.0)
    assert found.decode == (50.0, 51.0)
    assert found.threads == 3
    assert found.by == "llama-bench 0c1e57098"


def test_its_options_are_those_of_the_job(tmp_path: Path) -> None:
    said = tmp_path / "said"
    tool = a_tool(tmp_path, f"open({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))")

    bench(tool, JOB)

    assert said.read_text() == "-m m.gguf -p 128 -n 32 -r 2 -t 3 -o json"


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(1)",
        "print('no JSON')",
        "print('[]')",
        f"print({json.dumps([a_run(128, 0, 1.0)])!r})",
        "time.sleep(30)",
    ],
)
def test_a_tool_that_fails_gives_no_figure(tmp_path: Path, body: str) -> None:
    tool = a_tool(tmp_path, body)
    hasty = Speed(model="m", prompt=1, answer=1, repeats=1, threads=1, seconds=0.05)

    assert bench(tool, hasty) is None


def test_a_missing_tool_is_no_figure(tmp_path: Path) -> None:
    assert bench(tmp_path / "absent", JOB) is None
