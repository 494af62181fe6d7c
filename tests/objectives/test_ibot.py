import math

import pytest
import torch

from arl.objectives.ibot import PatchDistillation

B, N, K = 3, 5, 7
STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.06
MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)


def _tokens(seed):
    return torch.randn(B, N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _softmax(values):
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def _slow(student, teacher, center):
    """iBOT's patch loss as loops: mean over an image's masked patches, then over the images."""
    total = 0.0
    for b in range(B):
        terms = []
        for n in range(N):
            if MASK[b, n]:
                target = _softmax(
                    [(float(teacher[b, n, k]) - float(center[k])) / TEACHER_TEMP for k in range(K)]
                )
                predicted = _softmax([float(student[b, n, k]) / STUDENT_TEMP for k in range(K)])
                terms.append(-sum(t * math.log(s) for t, s in zip(target, predicted, strict=True)))
        total += sum(terms) / max(len(terms), 1)
    return total / B


@pytest.fixture
def objective():
    objective = PatchDistillation(K, STUDENT_TEMP, 0.8).double()
    objective.centering.center.copy_(0.3 * _tokens(9)[0, :1])
    return objective


def test_equals_ibot(objective) -> None:
    student, teacher = _tokens(0), _tokens(1)
    expected = _slow(student, teacher, objective.centering.center[0])
    loss = objective(student[MASK], teacher[MASK], MASK, TEACHER_TEMP)
    assert math.isclose(float(loss), expected, rel_tol=1e-10)


def test_gradient_and_centre(objective) -> None:
    student, teacher = _tokens(0)[MASK].requires_grad_(), _tokens(1)[MASK]
    before = objective.centering.center.clone()
    objective.eval()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, MASK, TEACHER_TEMP), student)
    assert torch.equal(objective.centering.center, before)
    objective.train()
    objective(student, teacher, MASK, TEACHER_TEMP)
    assert torch.allclose(
        objective.centering.center[0], 0.8 * before[0] + 0.2 * teacher.mean(dim=0), rtol=1e-12
    )


def test_one_row_per_masked_patch(objective) -> None:
    tokens = _tokens(0)[MASK]
    with pytest.raises(ValueError, match="5 masked patches, but 4 student and 5 teacher rows"):
        objective(tokens[:4], tokens, MASK, TEACHER_TEMP)
    with pytest.raises(ValueError, match="0 masked patches"):
        objective(tokens[:0], tokens[:0], torch.zeros_like(MASK), TEACHER_TEMP)
