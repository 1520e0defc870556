from quantize.worker.library import LogReader, TensorEvent
from quantize.worker.messages import TensorBegun, TensorEnded, TensorMisfit

# Pieces as llama.cpp 0c1e57098 gave them to the callback.
DRY = [
    "warning: blk.0.attn_k.weight                  - ncols    576 not divisible by 256"
    " (required for type    q4_K) ",
    "-> falling back to    q5_0\n",
    "[   1/ 272] output_norm.weight                   - [   576,      1,      1,"
    "      1], type =    f32, ",
    "size =    0.002 MiB\n",
    "[   3/ 272] blk.0.attn_k.weight                  - [   576,    192,      1,"
    "      1], type =   q4_1, ",
    "size =     0.07 MiB ->     0.07 MiB (q5_0)\n",
    "llama_model_quantize_impl: quant size  =    98.87 MiB (6.17 BPW)\n",
]
REAL = [
    "[   1/  20] token_embd.weight                    - [   256,    512,      1,"
    "      1], type =    f16, ",
    "converting to q6_K .. ",
    "size =     0.25 MiB ->     0.10 MiB\n",
]


def read(pieces: list[str]) -> list[TensorEvent]:
    reader = LogReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def test_a_dry_run_reports_what_every_tensor_becomes() -> None:
    assert read(DRY) == [
        TensorMisfit("blk.0.attn_k.weight", "Q4_K", "Q5_0"),
        TensorBegun(1, 272, "output_norm.weight"),
        TensorEnded("output_norm.weight", "F32"),
        TensorBegun(3, 272, "blk.0.attn_k.weight"),
        TensorEnded("blk.0.attn_k.weight", "Q5_0"),
    ]


def test_a_real_run_reports_a_tensor_before_it_is_done() -> None:
    assert read(REAL[:1]) == [TensorBegun(1, 20, "token_embd.weight")]
    assert read(REAL)[1:] == [TensorEnded("token_embd.weight", "Q6_K")]


def test_any_cutting_into_pieces_reports_the_same() -> None:
    text = "".join(DRY + REAL)

    assert read(list(text)) == read([text]) == read(DRY + REAL)


def test_a_line_between_start_and_end_of_a_tensor_does_no_harm() -> None:
    between = "\n====== llama_model_quantize_impl: did not find weights for x\n"

    assert read([REAL[0], between, *REAL[1:]]) == read(REAL)


def test_the_reason_of_a_failure_is_kept() -> None:
    reader = LogReader()
    said = "llama_model_quantize: failed to quantize: requantizing is disabled\n"

    reader.feed("llama_model_loader: loaded meta data\n")
    reader.feed(said)

    assert reader.problems == [said.strip()]
