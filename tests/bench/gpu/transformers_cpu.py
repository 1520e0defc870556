"""For comparison: a 7B in bfloat16 by Transformers on PyTorch, one stream.

Needs torch and transformers: `python tests/bench/gpu/transformers_cpu.py`.
"""

from __future__ import annotations

import importlib
import json
import time
from typing import Any

THREADS, PROMPT, ANSWER = 12, 64, 24


def main() -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.set_num_threads(THREADS)
    shape: Any = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32000,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(shape)
    model = model.to_empty(device="cpu").eval()
    for weights in model.parameters():
        torch.nn.init.constant_(weights, 0.001)
    prompt = torch.randint(300, 32000, (1, PROMPT))
    with torch.inference_mode():
        started = time.perf_counter()
        model.generate(prompt, max_new_tokens=1, do_sample=False)
        first = time.perf_counter() - started
        started = time.perf_counter()
        model.generate(
            prompt, max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False
        )
        whole = time.perf_counter() - started
    print(
        json.dumps(
            {
                "what": "transformers bf16",
                "threads": THREADS,
                "prefill": PROMPT / first,
                "decode": (ANSWER - 1) / (whole - first),
            }
        )
    )


if __name__ == "__main__":
    main()
