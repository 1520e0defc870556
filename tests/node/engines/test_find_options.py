from pathlib import Path

from node.engines.bundled import Bundled
from node.engines.find import BUNDLED, flags_in, options_of
from node.engines.native import Native

HELP = """
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        (env: LLAMA_ARG_KV_UNIFIED)
--spec-type none,draft-simple,ngram-mod  types of speculative decoding
"""


def test_flags_are_read_from_the_help() -> None:
    assert flags_in(HELP) == {"--kv-unified", "--no-kv-unified", "--spec-type"}


def test_a_native_engine_is_asked_and_the_bundled_one_is_known(tmp_path: Path) -> None:
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\n[ $1 = --help ] && echo '  --spec-type NAME'\n")
    server.chmod(0o755)

    assert options_of(Native(server, "b")) == {"--spec-type"}
    assert options_of(Native(tmp_path / "none", "b")) == frozenset()
    assert options_of(Bundled("b")) == BUNDLED
