"""How the cross-encoder is fed: token-budget batches of like length, next to no padding."""

from collections.abc import Iterator, Sequence

import torch

TOKENS_PER_BATCH = 2_000
NATIVE = {"amx_bf16": "amx", "amx_tile": "amx", "avx512_bf16": "avx512_bf16"}


def budget_batches(lengths: Sequence[int], budget: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Row numbers, shortest first, cut so that rows times longest stays within `budget`."""
    chosen: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if chosen and (len(chosen) + 1) * lengths[i] > budget:
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def bf16_by() -> str:
    """What this processor multiplies bf16 with; empty where it cannot do so itself."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return next((name for flag, name in NATIVE.items() if has.get(flag)), "")


def fastest_dtype() -> torch.dtype:
    """bf16 where the processor multiplies it itself, fp32 elsewhere."""
    return torch.bfloat16 if bf16_by() else torch.float32
