from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from arl.models.avit import AViT
from arl.models.decoder import patchify, unpatchify
from arl.objectives.masking import block_masking, random_masking
from arl.settings import Objective
from arl.training.pretrainer import Pretrainer, PretrainInputs, crop_patches

OBJECTIVE = Objective(
    mim=True,
    adversarial=True,
    self_distillation=True,
    patch_distillation=False,
    contrastive=False,
    self_distillation_tokens="cls",
    weighting="adaptive",
    constant_weight=0.5,
    adversarial_weight=2.0,
    max_adversarial_weight=0.0,
    mim_weight=3.0,
    discriminator_start=0.5,
    max_reconstructed_crops=2,
    mask_ratio=0.5,
    mask_strategy="random",
    drop_masked=True,
    norm_pix_loss=False,
    anatomy_dropout=0.0,
    prototypes=13,
    head_hidden=11,
    freeze_last_layer=0.0,
    stop_grad_conv1=False,
    student_temp=0.1,
    teacher_temp=0.07,
    warmup_teacher_temp=0.04,
    teacher_temp_warmup=0.3,
    teacher_momentum=0.9,
    center_momentum=0.9,
    centering="center",
    contrastive_temp=0.2,
    global_crops_scale=[0.4, 1.0],
    local_crops_scale=[0.1, 0.4],
    local_crops_number=3,
    local_crops_size=8,
    decoder_dim=8,
    decoder_depth=1,
    decoder_heads=2,
    discriminator_dim=4,
    discriminator_patches=4,
)


IBOT = {"mim": False, "adversarial": False, "patch_distillation": True, "drop_masked": False}
MOCO_V3 = {"mim": False, "adversarial": False, "self_distillation": False, "contrastive": True}


def pretrainer(**changes: object) -> Pretrainer:
    torch.manual_seed(0)
    encoder = AViT(img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3)
    return Pretrainer(encoder, replace(OBJECTIVE, **changes))


def inputs() -> PretrainInputs:
    generator = torch.Generator().manual_seed(1)
    return PretrainInputs(
        global_crops=torch.randn(6, 1, 16, 16, generator=generator),
        local_crops=torch.randn(9, 1, 8, 8, generator=generator),
        anatomy=torch.tensor([3, 4, 16]),
        noise=torch.rand(6, 16, generator=generator),
        block_noise=torch.rand(6, 10, 4, generator=generator),
    )


def norm_of(parameters) -> float:
    return sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None) ** 0.5


def test_patches_are_cut_with_half_a_patch_of_context() -> None:
    images = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    cut = crop_patches(images, torch.tensor([[4, 0], [1, 5]]), patch_size=4).reshape(2, 2, 3, 8, 8)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    torch.testing.assert_close(cut[0, 0], padded[0, :, 4:12, 4:12])  # patch 4 is row 1, column 1
    torch.testing.assert_close(cut[0, 1], padded[0, :, 0:8, 0:8])
    torch.testing.assert_close(cut[1, 0], padded[1, :, 0:8, 4:12])
    torch.testing.assert_close(cut[1, 1], padded[1, :, 4:12, 8:16])


def test_the_loss_is_the_sum_of_eq_6() -> None:
    terms = pretrainer()(inputs(), 0.7)
    reconstruction = terms["mim"] + 2.0 * terms["lambda"] * terms["adv"]
    total = terms["sd"] + 3.0 * reconstruction + terms["d"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_the_decoder_is_decoder_grad_by_the_gradient_of_the_generator_loss() -> None:
    """The reference inserts and cuts patches one by one and calls the discriminator again."""
    module, views, outputs = pretrainer(), inputs(), []
    module.decoder.register_forward_hook(lambda _, __, out: outputs.append(out))
    terms = module(views, 0.7)
    (decoder_grad,) = torch.autograd.grad(terms["generator"], outputs[0])
    prediction = outputs[0].detach().requires_grad_()
    mask, cut = random_masking(views.noise, 0.5).mask, []
    for image, hidden, noise, predicted in zip(
        views.global_crops, mask, views.noise, prediction, strict=True
    ):
        patches = patchify(image.unsqueeze(0), 4)[0].clone()
        patches[hidden] = predicted
        padded = torch.nn.functional.pad(
            unpatchify(patches.unsqueeze(0), 4, (16, 16))[0], (2, 2, 2, 2)
        )
        for index in noise.masked_fill(~hidden, -1).topk(4).indices.tolist():
            row, column = divmod(index, 4)
            cut.append(padded[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8])
    loss = torch.nn.functional.softplus(-module.discriminator(torch.stack(cut))).mean()
    torch.testing.assert_close(terms["adv"], loss)
    (expected,) = torch.autograd.grad(3.0 * 2.0 * terms["lambda"] * loss, prediction)
    torch.testing.assert_close(decoder_grad, expected)


def test_lambda_is_the_ratio_of_the_unweighted_gradients() -> None:
    """The weights of the terms scale the loss outside of lambda."""
    plain = pretrainer(mim_weight=1.0, adversarial_weight=1.0)(inputs(), 0.7)
    weighted = pretrainer(mim_weight=50.0, adversarial_weight=0.1)(inputs(), 0.7)
    assert weighted["lambda"].item() == pytest.approx(plain["lambda"].item(), rel=1e-5)
    assert weighted["generator"].item() == pytest.approx(5 * plain["generator"].item(), rel=1e-5)


def test_both_gradients_of_eq_6_have_the_same_norm_at_the_decoder() -> None:
    module, outputs = pretrainer(mim_weight=1.0, adversarial_weight=1.0), []
    module.decoder.register_forward_hook(lambda _, __, out: outputs.append(out))
    terms = module(inputs(), 0.7)
    norms = [
        torch.autograd.grad(terms[name], outputs[0], retain_graph=True)[0].norm().item()
        for name in ("reconstruction", "generator")
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_limit_of_lambda_is_reported() -> None:
    free = pretrainer()(inputs(), 0.7)
    limit = 0.5 * free["lambda"].item()
    clamped = pretrainer(max_adversarial_weight=limit)(inputs(), 0.7)
    assert (free["lambda_clamped"].item(), clamped["lambda_clamped"].item()) == (0, 1)
    assert clamped["lambda"].item() == pytest.approx(limit)


def test_a_saturated_discriminator_cannot_outweigh_the_reconstruction() -> None:
    """Without a limit, lambda grows, but its product with the vanishing gradient does not."""
    module, outputs = pretrainer(mim_weight=1.0, adversarial_weight=1.0), []
    module.decoder.register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        module.discriminator.head.weight.mul_(1e-9)
        module.discriminator.head.bias.fill_(40.0)
    terms = module(inputs(), 0.7)
    assert terms["loss"].isfinite()
    norms = [
        torch.autograd.grad(terms[name], outputs[0], retain_graph=True)[0].norm().item()
        for name in ("reconstruction", "generator")
    ]
    assert norms[1] <= norms[0] * (1 + 1e-4)


def test_the_generator_waits_for_the_discriminator() -> None:
    terms = pretrainer()(inputs(), 0.49)
    names = ("lambda", "lambda_clamped", "adv", "generator")
    assert [terms[name] for name in names] == [0] * 4
    assert terms["d"] > 0


def test_the_adversarial_loss_does_not_train_the_discriminator() -> None:
    module = pretrainer()
    module(inputs(), 0.7)["generator"].backward()
    assert norm_of(module.discriminator.parameters()) == 0
    assert norm_of(module.encoder.parameters()) > 0


def test_the_discriminator_does_not_train_the_encoder() -> None:
    module = pretrainer()
    module(inputs(), 0.7)["d"].backward()
    assert norm_of(module.discriminator.parameters()) > 0
    assert norm_of([*module.encoder.parameters(), *module.decoder.parameters()]) == 0


def test_the_teacher_gets_no_gradient_and_follows_by_its_momentum() -> None:
    module = pretrainer()
    module(inputs(), 0.7)["loss"].backward()
    assert norm_of(module.teacher.parameters()) == 0
    before = module.teacher.norm.weight.clone()
    with torch.no_grad():
        module.encoder.norm.weight += 1
    module.after_step(0.0)
    torch.testing.assert_close(module.teacher.norm.weight, before + 0.1)
    module.after_step(1.0)  # momentum 1 freezes it
    torch.testing.assert_close(module.teacher.norm.weight, before + 0.1)


def one_view() -> PretrainInputs:
    both = inputs()
    return replace(
        both,
        global_crops=both.global_crops[:3],
        local_crops=both.local_crops[:0],
        noise=both.noise[:3],
        block_noise=both.block_noise[:3],
    )


def test_visible_pixels_decide_nothing_of_the_reconstruction_loss_target() -> None:
    module = pretrainer(self_distillation=False, adversarial=False)
    one = one_view()
    full = module(one, 0.0)["mim"]
    assert full.item() > 0
    mask_free = replace(one, noise=1 - one.noise)
    assert module(mask_free, 0.0)["mim"].item() != pytest.approx(full.item())


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_masked": False},
        {"norm_pix_loss": True},
        {"self_distillation": False, "adversarial": False},
        {"mim": False, "adversarial": False},
        IBOT,
        MOCO_V3,
        {"weighting": "constant"},
        {"centering": "sinkhorn"},
        {"self_distillation_tokens": "all"},
        {"self_distillation_tokens": "all", "drop_masked": False},
        {"self_distillation_tokens": "all", "mim": False, "adversarial": False},
        {"mask_strategy": "block"},
    ],
)
def test_every_objective_trains_what_it_uses(changes: dict[str, object]) -> None:
    module = pretrainer(**changes)
    views = inputs() if module.objective.has_teacher else one_view()
    module(views, 0.7)["loss"].backward()
    unused = [
        name
        for name, p in module.named_parameters()
        if p.requires_grad and p.grad is None and "mask_token" not in name
    ]
    assert unused == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mim": False, "self_distillation": False, "adversarial": False},
            "has no term",
        ),
        ({"mim": False}, "adversarial needs mim"),
        ({"patch_distillation": True}, "drop_masked"),
        ({"contrastive": True}, "contrastive excludes"),
    ],
)
def test_objectives_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrainer(**changes)


def test_constant_weighting_is_the_constant() -> None:
    terms = pretrainer(weighting="constant")(inputs(), 0.7)
    assert terms["lambda"].item() == 0.5
    assert terms["lambda_clamped"].item() == 0
    assert terms["generator"].item() == pytest.approx(3.0 * 2.0 * 0.5 * terms["adv"].item())


def test_ibot_compares_the_masked_tokens_of_student_and_teacher_view_by_view() -> None:
    module, views = pretrainer(**IBOT), inputs()
    terms = module(views, 0.7)
    anatomy, mask = views.anatomy.repeat(2), torch.zeros(6, 16, dtype=torch.bool)
    mask.scatter_(
        1, views.noise.argsort(dim=1)[:, 8:], True
    )  # half of the patches, those of the greatest noise
    student = module.head(module.encoder(views.global_crops, anatomy, mask=mask)[:, 1:]) / 0.1
    teacher = (
        module.teacher_head(module.teacher(views.global_crops, anatomy)[:, 1:]) / 0.07
    )  # the centre starts at 0
    images = [
        sum(
            -(teacher[b, n].softmax(0) * student[b, n].log_softmax(0)).sum()
            for n in range(16)
            if mask[b, n]
        )
        / 8
        for b in range(6)
    ]
    assert terms["patch_sd"].item() == pytest.approx(torch.stack(images).mean().item(), rel=1e-4)
    assert terms["loss"].item() == pytest.approx((terms["sd"] + terms["patch_sd"]).item(), rel=1e-6)


def test_moco_contrasts_each_view_with_the_keys_of_the_other() -> None:
    module, views = pretrainer(**MOCO_V3), inputs()
    loss = module(views, 0.7)["contrast"].item()
    anatomy = views.anatomy.repeat(2)
    student_cls, teacher_cls = (
        encoder(views.global_crops, anatomy)[:, 0].chunk(2)
        for encoder in (module.encoder, module.teacher)
    )
    query = [normalize(module.predictor(module.head(view))) for view in student_cls]
    key = [normalize(module.teacher_head(view)) for view in teacher_cls]
    expected = 0.0
    for q, k in ((query[0], key[1]), (query[1], key[0])):
        expected += sum(-(q[b] @ k.T / 0.2).log_softmax(0)[b] for b in range(3)) / 3 * 2 * 0.2
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_of_two_crops_one_may_be_reconstructed() -> None:
    """L_MIM of two crops is the mean of both crops' L_MIM, and L_SD does not change."""
    both, first = (
        pretrainer(adversarial=False),
        pretrainer(adversarial=False, max_reconstructed_crops=1),
    )
    first.load_state_dict(both.state_dict())
    views = inputs()
    swap = [3, 4, 5, 0, 1, 2]  # the second crops first
    swapped = replace(views, global_crops=views.global_crops[swap], noise=views.noise[swap])
    halves = [first(crops, 0.0) for crops in (views, swapped)]
    whole = both(views, 0.0)
    assert halves[0]["mim"].item() != pytest.approx(halves[1]["mim"].item(), rel=1e-3)
    assert sum(half["mim"].item() for half in halves) / 2 == pytest.approx(
        whole["mim"].item(), rel=1e-5
    )
    assert halves[0]["sd"].item() == pytest.approx(whole["sd"].item(), rel=1e-5)


def test_a_reconstruction_needs_one_view_and_a_teacher_two() -> None:
    assert pretrainer(self_distillation=False, adversarial=False).objective.global_crops_number == 1
    assert pretrainer(**MOCO_V3).objective.global_crops_number == 2


def cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return -((teacher / 0.07).softmax(-1) * (student / 0.1).log_softmax(-1)).sum(-1).mean()


def test_eq_5_of_all_tokens_adds_the_visible_patches() -> None:
    """Each visible patch token of the student predicts the teacher's token of the same patch."""
    module, views = pretrainer(self_distillation_tokens="all"), inputs()
    terms = module(views, 0.7)
    anatomy, ids_keep = views.anatomy.repeat(2), random_masking(views.noise, 0.5).ids_keep
    student = module.head(module.encoder(views.global_crops, anatomy, ids_keep=ids_keep)[:, 1:])
    teacher = module.teacher_head(module.teacher(views.global_crops, anatomy)[:, 1:])
    teacher = teacher.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, 13))
    assert terms["token_sd"].item() == pytest.approx(
        cross_entropy(student, teacher).item(), rel=1e-4
    )
    cls_only = pretrainer()(views, 0.7)["sd"]
    assert terms["sd"].item() == pytest.approx((cls_only + terms["token_sd"]).item(), rel=1e-5)


def test_ibot_masks_blocks() -> None:
    module, views, masks = pretrainer(**IBOT, mask_strategy="block"), inputs(), []
    module.encoder.forward_features = lambda *_, mask, **__: masks.append(mask)
    with pytest.raises(TypeError):  # the stub returns no tokens
        module(views, 0.7)
    expected = block_masking(views.block_noise, views.noise, (4, 4), 0.5).mask
    assert torch.equal(masks[0], expected)
    assert not torch.equal(masks[0], random_masking(views.noise, 0.5).mask)


def test_frozen_prototypes_do_not_train() -> None:
    module = pretrainer(freeze_last_layer=0.5)
    module(inputs(), 0.49)["loss"].backward()
    assert norm_of(module.head.last_layer.parameters()) == 0
    assert norm_of(module.head.mlp.parameters()) > 0
    module(inputs(), 0.5)["loss"].backward()
    assert norm_of(module.head.last_layer.parameters()) > 0


def test_moco_v3_freezes_the_patch_embedding() -> None:
    module = pretrainer(**MOCO_V3, stop_grad_conv1=True)
    module(inputs(), 0.7)["loss"].backward()
    assert norm_of(module.encoder.patch_embed.parameters()) == 0
    assert norm_of(module.encoder.blocks.parameters()) > 0


def test_the_teacher_has_no_drop_path() -> None:
    torch.manual_seed(0)
    encoder = AViT(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3, drop_path_rate=0.9
    )
    module, crops = Pretrainer(encoder, OBJECTIVE).train(), inputs().global_crops
    torch.testing.assert_close(module.teacher(crops), module.teacher(crops), rtol=0, atol=0)
    assert not torch.equal(module.encoder(crops), module.encoder(crops))
