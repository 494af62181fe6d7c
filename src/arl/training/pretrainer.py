"""The objective of eq. 6 and the objectives of its comparison (Table 7), as one module."""

import copy
import math
from dataclasses import dataclass, replace

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from arl.models.avit import AViT, check_anatomy
from arl.models.block import select_tokens
from arl.models.decoder import patchify, unpatchify
from arl.models.discriminator import PatchDiscriminator
from arl.models.heads import DINOHead, MoCoPredictor, MoCoProjector
from arl.models.reconstructor import DecoderConfig, build_decoder
from arl.objectives.adaptive_weight import adaptive_weight
from arl.objectives.adversarial import discriminator_accuracy, discriminator_loss, generator_loss
from arl.objectives.collapse_metrics import feature_std, uniform_distance
from arl.objectives.contrastive import contrastive_loss
from arl.objectives.ibot import PatchDistillation
from arl.objectives.masking import Masking, block_masking, random_masking
from arl.objectives.mim import denormalize_patches, mim_loss, normalize_patches
from arl.objectives.schedules import teacher_momentum, warmup_schedule
from arl.objectives.self_distillation import SelfDistillation, teacher_entropy
from arl.settings import Objective

# Terms of the generator's side of eq. 4, which are zero before `discriminator_start`.
_GENERATOR_TERMS = ("adv", "lambda", "lambda_clamped", "generator")


@dataclass
class PretrainInputs:
    """Views of a micro-batch of B images, with G global and L local crops of each.

    Attributes:
        global_crops: (G*B, C, S, S), all first views and then all second views.
        local_crops: (L*B, C, s, s), or empty.
        anatomy: (B,) long; `NULL_ANATOMY` if the label is unknown or dropped.
        noise: (G*B, N) uniform in [0, 1), which determines the masks.
        block_noise: (G*B, T, 4) uniform in [0, 1), for block masks; may be empty.
    """

    global_crops: Tensor
    local_crops: Tensor
    anatomy: Tensor
    noise: Tensor
    block_noise: Tensor

    def to(self, device: torch.device) -> "PretrainInputs":
        """Copy the views to a device.

        Raises:
            ValueError: an anatomy is unknown.
        """
        if self.anatomy.device.type == "cpu":
            check_anatomy(self.anatomy)
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return replace(self, **moved)


def decoder_config(objective: Objective) -> DecoderConfig:
    """Select the settings of the decoder of L_MIM."""
    return DecoderConfig(
        decoder_dim=objective.decoder_dim,
        depth=objective.decoder_depth,
        heads=objective.decoder_heads,
        norm_pix_loss=objective.norm_pix_loss,
        drop_masked=objective.drop_masked,
    )


class Pretrainer(nn.Module):
    """Student and teacher A-ViT with the decoder and the discriminator of section 3.4."""

    def __init__(self, encoder: AViT, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.encoder = encoder
        # MoCo v3: a random, frozen stem avoids the spikes of its gradient.
        if objective.stop_grad_conv1:
            encoder.patch_embed.requires_grad_(False)
        if objective.mim:
            self.decoder = build_decoder(encoder, decoder_config(objective))
        if objective.adversarial:
            self.discriminator = PatchDiscriminator(
                encoder.patch_size,
                encoder.patch_size // 2,
                encoder.in_chans,
                objective.discriminator_dim,
            )
        if objective.has_teacher:
            self.head = _head(encoder.embed_dim, objective)
            self.teacher = copy.deepcopy(encoder).requires_grad_(False)
            # The teacher gives targets of the whole network, also in training mode.
            for module in self.teacher.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = 0.0
            self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        centering = (objective.center_momentum, objective.centering)
        distillation = (objective.prototypes, objective.student_temp, *centering)
        if objective.self_distillation:
            self.self_distillation = SelfDistillation(*distillation)
        if objective.self_distillation and objective.self_distillation_tokens == "all":
            self.token_distillation = PatchDistillation(*distillation)
        if objective.patch_distillation:
            self.patch_distillation = PatchDistillation(*distillation)
        if objective.contrastive:
            self.predictor = MoCoPredictor(objective.head_hidden)

    def forward(self, inputs: PretrainInputs, progress: float) -> dict[str, Tensor]:
        """Compute the named terms; `loss` is the sum to minimise. `progress` runs from 0 to 1."""
        anatomy = inputs.anatomy.repeat(self.objective.global_crops_number)
        tokens, masking = self._encode(inputs, anatomy)
        terms = {"feature_std": feature_std(tokens[:, 0])}
        if self.objective.has_teacher:
            terms |= self._learn_from_teacher(inputs, anatomy, tokens, masking, progress)
        if self.objective.mim:
            assert masking is not None
            num_reconstructed = self.objective.max_reconstructed_crops * len(inputs.anatomy)
            terms |= self._reconstruct(
                inputs.global_crops[:num_reconstructed],
                tokens[:num_reconstructed],
                masking.first(num_reconstructed),
                inputs.noise[:num_reconstructed],
                progress,
            )
        minimised = ("sd", "patch_sd", "contrast", "reconstruction", "generator", "d")
        return {
            "loss": torch.stack([terms[name] for name in minimised if name in terms]).sum(),
            **terms,
        }

    def _encode(self, inputs: PretrainInputs, anatomy: Tensor) -> tuple[Tensor, Masking | None]:
        """Encode the global crops; return their tokens and, if the objective masks, the masking."""
        encode, crops, ratio = (
            self.encoder.forward_features,
            inputs.global_crops,
            self.objective.mask_ratio,
        )
        if not self.objective.masks:
            return encode(crops, anatomy, cls_only=not self.objective.distills_patches), None
        if self.objective.mask_strategy == "random":
            masking = random_masking(inputs.noise, ratio)
        else:
            grid = self.encoder.grid_size
            masking = block_masking(inputs.block_noise, inputs.noise, grid, ratio)
        if self.objective.drop_masked:
            return encode(crops, anatomy, ids_keep=masking.ids_keep), masking
        return encode(crops, anatomy, mask=masking.mask), masking

    def _learn_from_teacher(
        self,
        inputs: PretrainInputs,
        anatomy: Tensor,
        tokens: Tensor,
        masking: Masking | None,
        progress: float,
    ) -> dict[str, Tensor]:
        """Compute the terms whose targets are the teacher's tokens of the unmasked global crops."""
        with torch.no_grad():
            cls_only = not self.objective.distills_patches
            teacher_tokens = self.teacher.forward_features(
                inputs.global_crops, anatomy, cls_only=cls_only
            )
        temperature = warmup_schedule(
            progress,
            start=self.objective.warmup_teacher_temp,
            end=self.objective.teacher_temp,
            warmup=self.objective.teacher_temp_warmup,
        )
        terms: dict[str, Tensor] = {}
        if self.objective.self_distillation:
            self.head.freeze_last_layer = progress < self.objective.freeze_last_layer
            terms |= self._distill(inputs, tokens[:, 0], teacher_tokens[:, 0], temperature)
            if self.objective.self_distillation_tokens == "all":
                token_sd = self._distill_tokens(tokens, teacher_tokens, masking, temperature)
                terms |= {"sd": terms["sd"] + token_sd, "token_sd": token_sd.detach()}
        if self.objective.patch_distillation:
            assert masking is not None
            terms["patch_sd"] = self._distill_patches(
                tokens[:, 1:], teacher_tokens[:, 1:], masking, temperature
            )
        if self.objective.contrastive:
            terms["contrast"] = self._contrast(tokens[:, 0], teacher_tokens[:, 0])
        return terms

    def _distill(
        self, inputs: PretrainInputs, cls_token: Tensor, teacher_cls: Tensor, temperature: float
    ) -> dict[str, Tensor]:
        """Compute L_SD (eq. 5): the student's views predict the teacher's unmasked global views."""
        images = len(inputs.anatomy)
        # Only the student sees local crops, and only their CLS token enters the loss.
        if len(inputs.local_crops):
            anatomy = inputs.anatomy.repeat(len(inputs.local_crops) // images)
            local = self.encoder.forward_features(inputs.local_crops, anatomy, cls_only=True)[:, 0]
            cls_token = torch.cat([cls_token, local])
        student = self.head(cls_token).split(images)
        with torch.no_grad():
            teacher = self.teacher_head(teacher_cls).split(images)
        targets = self.self_distillation.targets(teacher, temperature)
        loss = self.self_distillation.cross_entropy(student, targets)
        return {
            "sd": loss,
            "teacher_entropy": teacher_entropy(targets),
            "uniform_distance": uniform_distance(loss, self.objective.prototypes),
        }

    def _distill_tokens(
        self,
        tokens: Tensor,
        teacher_tokens: Tensor,
        masking: Masking | None,
        temperature: float,
    ) -> Tensor:
        """Compute eq. 5 of the student's patch tokens against the teacher's of the same view."""
        targets = teacher_tokens[:, 1:]
        visible = torch.ones_like(targets[..., 0], dtype=torch.bool)
        if masking is not None and self.objective.drop_masked:
            # ids_keep is ascending, so the order of the student's tokens is that of the mask.
            visible, targets = ~masking.mask, select_tokens(targets, masking.ids_keep)
        with torch.no_grad():
            targets = self.teacher_head(targets.flatten(0, 1))
        logits = self.head(tokens[:, 1:].flatten(0, 1))
        loss: Tensor = self.token_distillation(logits, targets, visible, temperature)
        return loss

    def _distill_patches(
        self, tokens: Tensor, teacher_tokens: Tensor, masking: Masking, temperature: float
    ) -> Tensor:
        """Compute iBOT's L_MIM: the student's masked tokens predict the teacher's."""
        # Not `tokens[mask]`, whose size a GPU would have to tell the host.
        student, teacher = (
            select_tokens(one, masking.ids_masked).flatten(0, 1) for one in (tokens, teacher_tokens)
        )
        with torch.no_grad():
            targets = self.teacher_head(teacher)
        loss: Tensor = self.patch_distillation(
            self.head(student), targets, masking.mask, temperature
        )
        return loss

    def _contrast(self, cls_token: Tensor, teacher_cls: Tensor) -> Tensor:
        """Compute MoCo v3's loss; each view has its own batch statistics in the heads."""
        first, second = (self.predictor(self.head(view)) for view in cls_token.chunk(2))
        with torch.no_grad():
            key_1, key_2 = (self.teacher_head(view) for view in teacher_cls.chunk(2))
        return contrastive_loss((first, second), (key_1, key_2), self.objective.contrastive_temp)

    def _reconstruct(
        self,
        images: Tensor,
        tokens: Tensor,
        masking: Masking,
        noise: Tensor,
        progress: float,
    ) -> dict[str, Tensor]:
        """Compute L_MIM (eq. 3) and, from `discriminator_start` on, lambda * L_adv (eq. 6)."""
        ids_keep = masking.ids_keep if self.objective.drop_masked else None
        ids_masked, num_patches = masking.ids_masked, masking.mask.shape[1]
        prediction = self.decoder(tokens, ids_keep, num_patches, ids_masked).float()
        pixels = patchify(images, self.encoder.patch_size).float()
        index = ids_masked.unsqueeze(-1).expand(-1, -1, pixels.shape[-1])
        target = pixels.gather(1, index)
        if self.objective.norm_pix_loss:
            target, mean, std = normalize_patches(target)
        mim = mim_loss(prediction, target, torch.ones_like(ids_masked, dtype=torch.bool))
        terms = {"mim": mim.detach(), "reconstruction": self.objective.mim_weight * mim}
        if not self.objective.adversarial:
            return terms
        predicted_pixels = (
            denormalize_patches(prediction, mean, std)
            if self.objective.norm_pix_loss
            else prediction
        )
        composite = unpatchify(
            pixels.scatter(1, index, predicted_pixels), self.encoder.patch_size, images.shape[-2:]
        )
        # bfloat16 is too coarse for the logits of a saturated discriminator.
        with torch.autocast(images.device.type, enabled=False):
            # Some masked patches, with half a patch of context.
            count = min(self.objective.discriminator_patches, ids_masked.shape[1])
            index = noise.masked_fill(~masking.mask, -1.0).topk(count, dim=1).indices
            real, fake = (
                crop_patches(one, index, self.encoder.patch_size)
                for one in (images.float(), composite)
            )
            return terms | self._adversarial_terms(real, fake, mim, prediction, progress)

    def _adversarial_terms(
        self, real: Tensor, fake: Tensor, mim: Tensor, prediction: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Compute both sides of eq. 4 on patches (M, C, s, s).

        `fake` is a function of the decoder's `prediction`.
        """
        # Detached, so that the discriminator's loss does not train the decoder.
        fake_detached = fake.detach().requires_grad_()
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake_detached)
        terms = {
            "d": discriminator_loss(real_logits, fake_logits),
            "d_accuracy": discriminator_accuracy(real_logits.detach(), fake_logits.detach()),
        }
        if progress < self.objective.discriminator_start:
            # The history is a table, so every step has the same names.
            return terms | {name: mim.new_zeros(()) for name in _GENERATOR_TERMS}
        adversarial = generator_loss(fake_logits)
        (fake_grad,) = torch.autograd.grad(adversarial, fake_detached, retain_graph=True)
        return terms | self._generator_terms(
            adversarial.detach(), (fake * fake_grad).sum(), mim, prediction
        )

    def _generator_terms(
        self, adversarial: Tensor, surrogate: Tensor, mim: Tensor, prediction: Tensor
    ) -> dict[str, Tensor]:
        """Weight the generator's side of eq. 4 by eq. 6.

        `surrogate` has the gradient of L_adv, not its value. So one backward pass through the
        discriminator serves lambda and the decoder, and does not train the discriminator.
        """
        objective = self.objective
        limit = objective.max_adversarial_weight or math.inf
        if objective.weighting == "constant":
            ratio = limited = mim.new_full((), objective.constant_weight)
        else:
            # Of the unweighted losses. The weights of the terms are outside of lambda.
            ratio = adaptive_weight(mim, surrogate, prediction)
            limited = ratio.clamp(max=limit)
        scale = objective.mim_weight * objective.adversarial_weight
        return {
            "adv": adversarial,
            "lambda": limited,
            "lambda_clamped": (ratio > limited).float(),
            "generator": scale * limited * (adversarial + surrogate - surrogate.detach()),
        }

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student (exponential moving average)."""
        if not self.objective.has_teacher:
            return
        momentum = teacher_momentum(progress, self.objective.teacher_momentum)
        for teacher, student in ((self.teacher, self.encoder), (self.teacher_head, self.head)):
            averages: list[Tensor] = list(teacher.parameters())
            weights = [p.detach() for p in student.parameters()]
            torch._foreach_lerp_(averages, weights, 1.0 - momentum)

    def released_encoder(self) -> AViT:
        """Return the encoder to release: the teacher, if there is one."""
        return self.teacher if self.objective.has_teacher else self.encoder


def _head(embed_dim: int, objective: Objective) -> DINOHead | MoCoProjector:
    if objective.contrastive:
        return MoCoProjector(embed_dim, objective.head_hidden)
    return DINOHead(embed_dim, objective.prototypes, objective.head_hidden)


def crop_patches(images: Tensor, index: Tensor, patch_size: int) -> Tensor:
    """Cut patches with half a patch of context on each side.

    Args:
        images: (B, C, H, W)
        index: (B, M) long, patches in raster order

    Returns:
        (B * M, C, 2 * patch_size, 2 * patch_size); outside the image is zero
    """
    blocks, (down, across) = _blocks(F.pad(images, (patch_size // 2,) * 4), patch_size // 2)
    patches_across = images.shape[3] // patch_size
    row, column = 2 * (index // patches_across), 2 * (index % patches_across)
    first_block = torch.arange(0, len(blocks), down * across, device=index.device).unsqueeze(1)
    corner = (first_block + row * across + column).view(-1, 1, 1)
    four = torch.arange(4, device=index.device)
    rows = corner + across * four.unsqueeze(1) + four
    return _from_blocks(F.embedding(rows, blocks), images.shape[1])


def _blocks(images: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut images into a table of blocks (B * h * w, side * side * C); also return h and w.

    Four by four blocks make up a patch with its context.
    """
    batch, channels, height, width = images.shape
    down, across = height // side, width // side
    grid = images.reshape(batch, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
    return grid.reshape(batch * down * across, side * side * channels), (down, across)


def _from_blocks(blocks: Tensor, channels: int) -> Tensor:
    """(M, n, n, side * side * C) -> (M, C, n * side, n * side)."""
    count, size = blocks.shape[0], blocks.shape[1]
    side = math.isqrt(blocks.shape[3] // channels)
    grid = blocks.view(count, size, size, side, side, channels).transpose(2, 3)
    return grid.reshape(count, size * side, size * side, channels).permute(0, 3, 1, 2)
