from node.engines.output import KEPT, LONGEST, Output, ending, telling

LOG = [
    "0.00.002.460 I srv  llama_server: initializing ...",
    "0.00.005.636 E gguf_init_from_file_impl: tensor 'a' is out of bounds",
    "0.00.005.700 E llama_model_load: error loading model",
    "0.00.006.000 I cmn   more",
]


def test_the_lines_that_say_what_went_wrong_are_picked() -> None:
    assert telling(LOG) == (
        "gguf_init_from_file_impl: tensor 'a' is out of bounds"
        " | llama_model_load: error loading model"
    )


def test_without_a_telling_line_the_last_ones_must_do() -> None:
    assert telling(["a", "b", "c", "d"]) == "b | c | d"


def test_a_reason_stays_short_and_keeps_the_last_error() -> None:
    many = [f"error {n}: {'x' * 90}" for n in range(30)]

    said = telling(many)

    assert len(said) <= LONGEST
    assert "error 29" in said


def test_repeated_lines_are_shown_once() -> None:
    assert telling(["error: no", "error: no"]) == "error: no"


def test_a_kill_is_named_and_memory_suspected() -> None:
    assert ending(-9, []) == "killed by SIGKILL (out of memory?)"
    assert ending(-11, ["bye"]) == "killed by SIGSEGV: bye"
    assert ending(1, LOG).startswith("ended with status 1: gguf_init")


def test_only_the_last_lines_are_kept() -> None:
    output = Output()
    for n in range(100):
        output.add(b"line %d \xff\n" % n)

    assert len(output.lines) == KEPT
    assert output.lines[-1] == "line 99 \ufffd"
