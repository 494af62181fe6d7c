"""Parts of every block."""

import pytest
import torch
from torch import Tensor

from arl.models.block import Attention, select_tokens


@pytest.mark.parametrize("num_queries", [None, 1])
def test_attention_in_bfloat16_is_that_of_float32_to_its_rounding(num_queries: int | None) -> None:
    torch.manual_seed(0)
    attention, tokens, grad = (
        Attention(66, 3),
        torch.randn(5, 37, 66),
        torch.randn(5, num_queries or 37, 66),
    )

    def outputs(bf16: bool) -> list[Tensor]:
        attention.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = attention(select_tokens(tokens, num_queries), tokens)
        (out.float() * grad).sum().backward()
        return [
            out.float(),
            *(p.grad.clone() for p in attention.parameters() if p.grad is not None),
        ]

    for single, half in zip(outputs(bf16=False), outputs(bf16=True), strict=True):
        assert half.dtype == torch.float32
        assert (half - single).norm() < 0.02 * single.norm()


def test_tokens_are_selected_by_number_or_by_index() -> None:
    tokens = torch.randn(2, 7, 3)
    assert select_tokens(tokens, None) is tokens
    assert torch.equal(select_tokens(tokens, 2), tokens[:, :2])
    index = torch.tensor([[6, 0], [3, 3]])
    assert torch.equal(
        select_tokens(tokens, index), torch.stack([tokens[0, [6, 0]], tokens[1, [3, 3]]])
    )
