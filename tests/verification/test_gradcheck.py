"""`gradcheck` beside PyTorch's own, on the same functions."""

import pytest

from tinynet.verification import GradientError, gradcheck, verify

torch = pytest.importorskip("torch")


class Cubed(torch.autograd.Function):
    """x³ W"""

    @staticmethod
    def forward(ctx, x, W):
        ctx.save_for_backward(x, W)
        return x**3 @ W

    @staticmethod
    def backward(ctx, dy):
        x, W = ctx.saved_tensors
        return 3 * x**2 * (dy @ W.T), (x**3).T @ dy


class Twice(Cubed):
    @staticmethod
    def backward(ctx, dy):
        dx, dW = Cubed.backward(ctx, dy)
        return 2 * dx, dW


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=dtype, requires_grad=True), torch.randn(3, 4, dtype=dtype)


def test_both_accept_a_right_function():
    assert torch.autograd.gradcheck(Cubed.apply, inputs()) is True
    assert gradcheck(Cubed.apply, inputs()) is True


def test_both_refuse_a_wrong_one_and_ours_names_it():
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(Twice.apply, inputs())
    with pytest.raises(GradientError, match="scaled by 2") as caught:
        gradcheck(Twice.apply, inputs())
    assert caught.value.report.verdict == "FAIL"


def test_both_return_false_where_they_are_not_to_raise():
    for check in (torch.autograd.gradcheck, gradcheck):
        assert check(lambda x, W: torch.sin(Twice.apply(x, W)), inputs(), raise_exception=False) is False


def test_only_what_requires_a_gradient_is_judged():
    x, W = inputs()
    for check in (torch.autograd.gradcheck, gradcheck):
        assert check(Twice.apply, (x.detach(), W.requires_grad_())) is True


def test_the_options_of_pytorch_are_taken_and_a_single_tensor_too():
    x, W = inputs()
    for check in (torch.autograd.gradcheck, gradcheck):
        assert check(lambda x: Cubed.apply(x, W), x, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True) is True


def test_float32_is_judged_in_float32():
    assert gradcheck(Cubed.apply, inputs(torch.float32)) is True
    assert gradcheck(Twice.apply, inputs(torch.float32), raise_exception=False) is False


def test_without_anything_to_judge_both_raise():
    x, W = inputs()
    for check in (torch.autograd.gradcheck, gradcheck):
        with pytest.raises(ValueError, match=r"requires? (a )?grad"):
            check(Cubed.apply, (x.detach(), W))


def test_wrt_names_an_argument_of_a_function():
    arrays = tuple(t.detach().numpy() for t in inputs())
    assert verify(Twice, inputs=arrays, wrt=["W"]).verdict == "PASS"
    assert verify(Twice, inputs=arrays, wrt=["x"]).verdict == "FAIL"
