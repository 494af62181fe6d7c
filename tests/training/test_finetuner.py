import pytest
import torch

from arl.models.avit import AViT
from arl.models.heads import Classifier
from arl.models.upernet import Segmenter
from arl.tasks.classification import Classification
from arl.tasks.segmentation import Segmentation
from arl.training import optim
from arl.training.finetuner import FineTuner, TaskInputs

THREE = Classification(("a", "b", "c"))


def encoder() -> AViT:
    return AViT(img_size=16, patch_size=4, embed_dim=12, depth=4, num_heads=3)


def test_classification_is_cross_entropy_with_smoothing() -> None:
    torch.manual_seed(0)
    tuner = FineTuner(Classifier(encoder(), num_classes=3), THREE, label_smoothing=0.1).eval()
    inputs = TaskInputs(
        torch.randn(5, 1, 16, 16), torch.full((5,), 3), torch.tensor([0, 1, 2, 1, 0])
    )
    logits = tuner.model(inputs.image, inputs.anatomy).double()
    log_p = logits.log_softmax(1)
    smooth = torch.full((5, 3), 0.1 / 3, dtype=torch.float64)
    smooth[range(5), inputs.target] += 0.9
    assert tuner(inputs, 0.0)["loss"].item() == pytest.approx(
        -(smooth * log_p).sum(1).mean().item(), rel=1e-5
    )


def test_segmentation_adds_cross_entropy_and_dice() -> None:
    torch.manual_seed(0)
    tuner = FineTuner(Segmenter(encoder(), channels=8), Segmentation("lv"), label_smoothing=0.0)
    target = (torch.rand(2, 1, 16, 16) > 0.5).float()
    terms = tuner(TaskInputs(torch.randn(2, 1, 16, 16), torch.full((2,), 4), target), 0.0)
    assert terms["loss"].item() == pytest.approx(
        (terms["cross_entropy"] + terms["dice_loss"]).item()
    )
    terms["loss"].backward()
    assert all(
        p.grad is not None
        for name, p in tuner.named_parameters()
        if name.endswith("attn.proj.weight")
    )


def test_the_head_learns_faster_than_the_first_layers() -> None:
    tuner = FineTuner(Classifier(encoder(), num_classes=3), THREE, label_smoothing=0.0)
    groups = optim.parameter_groups(tuner, weight_decay=0.05, layer_decay=0.5, depth=4)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    parameters = dict(tuner.named_parameters())
    assert scale[id(parameters["encoder.patch_embed.proj.weight"])] == 0.5**5
    assert scale[id(parameters["encoder.blocks.3.mlp.fc1.weight"])] == 0.5
    heads = [scale[id(p)] for name, p in parameters.items() if not name.startswith("encoder.")]
    assert heads
    assert set(heads) == {1.0}
