"""A `cmake` that builds llama.cpp in a moment, or fails as told; for engine build."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

HEAD = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"

CMAKE = """#!{python}
import os, pathlib, sys, time
arguments = sys.argv[1:]
fault = os.environ.get("STUB_FAULT", "")
if arguments[0] == "-S":
    out = pathlib.Path(arguments[3])
    out.mkdir(parents=True, exist_ok=True)
    (out / "flags").write_text(" ".join(arguments[4:]))
    if fault == "configure":
        print("CMake Error: no such thing as a compiler")
        sys.exit(1)
else:
    out = pathlib.Path(arguments[1])
    print("[  7%] Building CXX object a.o")
    if fault == "hang":
        print("hanging", os.getpid(), flush=True)
        time.sleep(600)
    if fault == "compile":
        print("a.cpp:1:1: fatal error: nonsense.h: No such file or directory")
        print("make: *** [all] Error 2")
        sys.exit(2)
    print("[ 50%] Building CXX object b.o")
    print("[100%] Linking")
    (out / "bin").mkdir(exist_ok=True)
    for name in arguments[arguments.index("--target") + 1 :]:
        tool = out / "bin" / name
        tool.write_text(pathlib.Path({server!r}).read_text())
        tool.chmod(0o755)
"""

SERVER = """#!{python}
import http.server, json, os, pathlib, sys
fault = os.environ.get("STUB_FAULT", "")
if "--version" in sys.argv:
    print("version: 9.9 (build 0, commit 0c1e57098)", file=sys.stderr)
    sys.exit(3 if fault == "version" else 0)
if "--list-devices" in sys.argv:
    device = os.environ.get("STUB_DEVICE", "(none)")
    print("Available devices:\\n  " + device)
    sys.exit()

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({{"status": "ok"}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if fault == "crash" or (fault == "amx" and with_amx):
            os._exit(3)
        count = 0 if fault == "silent" else asked["n_predict"]
        self.answer({{"tokens_predicted": count}})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass

flags = pathlib.Path(__file__).parent.with_name("flags")
with_amx = flags.exists() and "-U__AMX_INT8__" not in flags.read_text()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


def install(folder: Path) -> Path:
    """Put `cmake` into a folder of its own, for the front of PATH; return that."""
    folder.mkdir()
    server = folder / "server.py"
    server.write_text(SERVER.format(python=sys.executable))
    cmake = folder / "cmake"
    cmake.write_text(CMAKE.format(python=sys.executable, server=str(server)))
    cmake.chmod(0o755)
    return folder


def an_sdist(path: Path, *, vendored: bool = True) -> Path:
    """Write what looks like the sdist of llama-cpp-python."""
    files = {".git/modules/vendor/llama.cpp/HEAD": HEAD + "\n", "README.md": "x"}
    if vendored:
        files["vendor/llama.cpp/CMakeLists.txt"] = "project(llama.cpp)"
        files["vendor/llama.cpp/ggml/CMakeLists.txt"] = "project(ggml)"
        files["vendor/llama.cpp/.git"] = "gitdir: ../../.git/modules"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path
