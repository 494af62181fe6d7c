"""Heads on the encoder."""

import copy

import pytest
import torch

from arl.models.avit import AViT
from arl.models.heads import ClassificationHead, Classifier, DINOHead


def test_prototypes_are_cosines() -> None:
    head = DINOHead(7, 13, hidden=11, bottleneck=5)
    x = torch.randn(3, 7)
    logits = head(x)
    assert logits.shape == (3, 13)
    bottleneck = head.mlp(x)
    expected = torch.nn.functional.cosine_similarity(
        bottleneck.unsqueeze(1), head.last_layer.weight, dim=-1
    )
    torch.testing.assert_close(logits, expected)
    with torch.no_grad():
        head.last_layer.weight.mul_(3)
    torch.testing.assert_close(head(x), logits)


def test_images_start_with_bottlenecks_of_their_own() -> None:
    torch.manual_seed(0)
    bottleneck = DINOHead(192, 13, hidden=512).mlp(torch.randn(61, 192))
    # the mean of 61 unit vectors is short unless they agree; with PyTorch's biases it has a length
    # of 0.87
    assert torch.nn.functional.normalize(bottleneck, dim=-1).mean(dim=0).norm() < 0.4


def test_the_teacher_can_be_a_copy() -> None:
    head = DINOHead(7, 13, hidden=11, bottleneck=5)
    x = torch.randn(3, 7)
    torch.testing.assert_close(copy.deepcopy(head)(x), head(x))


def test_the_classifier_averages_the_patch_tokens() -> None:
    head = ClassificationHead(11, 5)
    tokens = torch.randn(3, 8, 11)
    logits = head(tokens)
    tokens[:, 0] += 1  # CLS takes no part
    torch.testing.assert_close(head(tokens), logits)
    torch.testing.assert_close(logits, head.linear(head.norm(tokens[:, 1:].mean(1))))


def test_a_classifier_of_images() -> None:
    encoder = AViT(img_size=21, patch_size=7, embed_dim=12, depth=1, num_heads=3)
    model = Classifier(encoder, 5)
    logits = model(torch.randn(2, 1, 21, 21), torch.tensor([3, 16]))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert encoder.cls_token.grad is not None
    with pytest.raises(ValueError, match="num_classes is 1"):
        Classifier(encoder, 1)
