"""What we change in llama.cpp's source before we compile it: little, and written down.

A change is made where its lines are found exactly as they are known, else left alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edit:
    """Lines of a file that stand there so many times, and what they become."""

    file: str
    known: str
    becomes: str
    times: int = 1


@dataclass(frozen=True)
class Change:
    """Edits that belong together. `why` is for who reads the log."""

    name: str
    why: str
    edits: tuple[Edit, ...]


QUEUE = "tools/server/server-queue"

WAKE_ONE_READER = Change(
    name="wake-one-reader",
    why="each token woke the threads of all streams, which then fought for one lock",
    edits=(
        Edit(
            f"{QUEUE}.h",
            "    std::condition_variable condition_results;\n",
            """\
    std::condition_variable condition_results;

    // the reader in recv_with_timeout() that waits for a task, to be woken alone
    std::unordered_map<int, std::condition_variable *> reader_of;
""",
        ),
        Edit(
            f"{QUEUE}.h",
            "#include <unordered_set>\n",
            "#include <unordered_map>\n#include <unordered_set>\n",
        ),
        Edit(
            f"{QUEUE}.cpp",
            "        std::cv_status cr_res = condition_results.wait_for(",
            """\
        std::condition_variable mine;
        for (const int id : id_tasks) {
            reader_of[id] = &mine;
        }
        std::cv_status cr_res = mine.wait_for(""",
        ),
        Edit(
            f"{QUEUE}.cpp",
            """\
        if (!running) {
            RES_DBG("%s : queue result stop\\n", __func__);
""",
            """\
        for (const int id : id_tasks) {
            reader_of.erase(id);
        }
        if (!running) {
            RES_DBG("%s : queue result stop\\n", __func__);
""",
        ),
        Edit(
            f"{QUEUE}.cpp",
            """\
            queue_results.emplace_back(std::move(result));
            condition_results.notify_all();
            return;
""",
            """\
            queue_results.emplace_back(std::move(result));
            const auto reader = reader_of.find(id_task);
            if (reader != reader_of.end()) {
                reader->second->notify_one();
            } else {
                condition_results.notify_all();
            }
            return;
""",
        ),
        Edit(
            f"{QUEUE}.cpp",
            "    condition_results.notify_all();\n}\n",
            """\
    condition_results.notify_all();
    for (const auto & reader : reader_of) {
        reader.second->notify_all();
    }
}
""",
            times=2,
        ),
    ),
)
"""With 32 streams every token woke 32 threads. A result now wakes the one that waits
for its task in `reader_of`, under the lock of both; other waits are as they were."""

CHANGES = (WAKE_ONE_READER,)


def change(folder: Path) -> tuple[str, ...]:
    """Change the source in `folder`; return the names of the changes made."""
    return tuple(each.name for each in CHANGES if _made(each, folder))


def _made(change: Change, folder: Path) -> bool:
    texts: dict[str, str] = {}
    for edit in change.edits:
        text = texts.get(edit.file) or _read(folder / edit.file)
        if text.count(edit.known) != edit.times:
            log.warning(
                "%s is another one than we know; building it as it is (%s)",
                edit.file,
                change.why,
            )
            return False
        texts[edit.file] = text.replace(edit.known, edit.becomes)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return True


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
