from pathlib import Path

import gguf
import numpy as np

from edgeserve.models.synthetic import Kind, Shape, a_model

SHAPE = Shape(layers=16, vocabulary=512, tied=False)


def kinds(path: Path) -> dict[str, str]:
    return {each.name: each.tensor_type.name for each in gguf.GGUFReader(path).tensors}


def test_q4_k_mixes_types_as_llama_quantize_does(tmp_path: Path) -> None:
    found = kinds(a_model(tmp_path / "m.gguf", SHAPE, kind=Kind.Q4_K))

    better = [n for n in range(16) if found[f"blk.{n}.ffn_down.weight"] == "Q6_K"]
    assert better == [0, 1, 4, 7, 10, 13, 14, 15]
    assert found["blk.1.attn_v.weight"] == "Q6_K"
    assert found["blk.1.attn_q.weight"] == "Q4_K"
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q6_K", "Q4_K")
    assert found["output_norm.weight"] == "F32"


def test_every_type_holds_weights_of_the_same_size(tmp_path: Path) -> None:
    for kind in (Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_K):
        path = a_model(tmp_path / f"{kind.name}.gguf", SHAPE, kind=kind)
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.tensor_type is Kind.F32:
                continue
            weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            columns = weights.shape[-1]
            assert abs(weights.mean()) < 0.1 * columns**-0.5, tensor.name
            assert np.isclose(weights.std(), columns**-0.5, rtol=0.05), tensor.name
