"""A llama.cpp whose converter takes a moment, or fails as told."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
import json, os, pathlib, shutil, sys, time
import gguf, conversion
fault = os.environ.get("STUB_FAULT", "")
folder, *options = sys.argv[1:]
given = dict(zip(options[::2], options[1::2]))
target = pathlib.Path(given["--outfile"].format(ftype="F16"))
offline = os.environ["HF_HUB_OFFLINE"]
seen = {"argv": sys.argv[1:], "gguf": gguf.__file__, "offline": offline}
pathlib.Path(os.environ["STUB_SEEN"]).write_text(json.dumps(seen))
print("INFO:hf-to-gguf:Loading model: tiny", file=sys.stderr)
if fault == "architecture":
    print("ERROR:hf-to-gguf:Model FooForCausalLM is not supported", file=sys.stderr)
    sys.exit(1)
if fault == "module":
    import missing_module
if fault == "tokenizer":
    raise NotImplementedError("BPE pre-tokenizer was not recognized - update x()")
if fault == "killed":
    os.kill(os.getpid(), 9)
if fault == "other":
    raise ValueError("Can not map tensor 'model.foo.weight'")
if fault == "nothing":
    sys.exit(0)
print("INFO:hf-to-gguf:output.weight,   torch.float32 --> F16, shape = {64, 384}")
target.write_bytes(b"GGUF")
if fault == "hang":
    print("Writing:   1%", file=sys.stderr, flush=True)
    time.sleep(600)
for percent in (0, 50, 100):
    sys.stderr.write(f"\\rWriting: {percent:3}%|##   | 1/2 [00:00<00:00]")
if fault != "damaged":
    shutil.copy(os.environ["STUB_MODEL"], target)
"""


def a_converter(folder: Path) -> Path:
    """Write what looks like a folder of llama.cpp; its converter copies STUB_MODEL.

    It writes its arguments and surroundings to STUB_SEEN. STUB_FAULT: how it fails.
    """
    files = {
        "ggml/CMakeLists.txt": "project(ggml)",
        "CMakeLists.txt": "project(llama.cpp)",
        "convert_hf_to_gguf.py": SCRIPT,
        "conversion/__init__.py": "",
        "gguf-py/gguf/__init__.py": "",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
