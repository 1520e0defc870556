"""Make another variant of a real model without llama.cpp: through gguf alone."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

QUANTIZED = 2
"""Dimensions a tensor must have to be stored quantized; norms stay F32."""


def requantized(
    source: Path,
    target: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    file_type: gguf.LlamaFileType = gguf.LlamaFileType.MOSTLY_Q8_0,
) -> None:
    """Write `source` again with its matrices as `kind`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(
        target, str(reader.fields["general.architecture"].contents())
    )
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = int(file_type) if name == "general.file_type" else field.contents()
        item = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, value, field.types[0], item)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) == QUANTIZED:
            packed = gguf.quants.quantize(data.astype(np.float32), kind)
            writer.add_tensor(tensor.name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
