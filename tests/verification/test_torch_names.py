"""Mistakes in the backward of a torch Function are named and placed as in NumPy."""

import jax
import numpy as np
import pytest

import tinynet as tn

torch = pytest.importorskip("torch")

from tinynet.verification.adapters.torch.oracle import TorchOracle  # noqa: E402
from tinynet.verification.adapters.torch.recorded import recorded  # noqa: E402

RNG = np.random.default_rng(0)
x, w = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 2))


class Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        z = x @ w
        return torch.relu(z)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T, x.T @ g


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y)


class Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.save_for_backward(s)
        return s

    @staticmethod
    def backward(ctx, g):
        (s,) = ctx.saved_tensors
        return g * s


class Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        gate = torch.exp(-x * x)
        ctx.save_for_backward(x, gate)
        return gate * x

    @staticmethod
    def backward(ctx, g):
        _, gate = ctx.saved_tensors
        return g * gate


class Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        spread = torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
        y = centred / spread
        return (g - y * (g * y).mean(-1, keepdim=True)) / spread


@pytest.mark.parametrize(
    ("function", "inputs", "fault", "text"),
    [
        (Rectified, (x, w), "σ′ missing", "return torch.relu(z)"),
        (Tanh, x, "another activation's derivative", "y = torch.tanh(x)"),
        (Sigmoid, x, "another activation's derivative", "s = torch.sigmoid(x)"),
        (Gated, x, "missing path", "return gate * x"),
        (Normalised, x, "missing path", "centred = x - x.mean(-1, keepdim=True)"),
    ],
)
def test_a_mistake_is_named_at_the_line_of_the_forward(function, inputs, fault, text):
    (finding,) = tn.verify(function, inputs=inputs).findings
    assert (finding.fault, finding.text) == (fault, text), finding
    assert finding.where


def test_a_forward_pass_of_one_line_is_placed_there():
    class Short(torch.autograd.Function):
        def forward(ctx, x): ctx.save_for_backward(x); return torch.sin(x)  # noqa: E702 # fmt: skip

        @staticmethod
        def backward(ctx, g):
            return g / 2 * torch.cos(ctx.saved_tensors[0])

        forward = staticmethod(forward)

    (finding,) = tn.verify(Short, inputs=x).findings
    assert finding.at == f"test_torch_names.py:{Short.forward.__code__.co_firstlineno}"


FORWARDS = {
    "functions": lambda x, w: torch.exp(x).log().tanh().sin().cos() + torch.sigmoid(x) * torch.relu(x) - x.abs().sqrt(),
    "more functions": lambda x, w: torch.erf(x) + 1 / (2 + x * x).rsqrt() + (x**2).log1p() + torch.expm1(-x) + 3 - x,
    "activations": lambda x, w: (
        torch.nn.functional.silu(x) + torch.nn.functional.softplus(x) + torch.nn.functional.leaky_relu(x, 0.2)
    ),
    "products": lambda x, w: (x @ w) @ w.T + torch.einsum("ij,kj->ik", x, x) @ x,
    "linear": lambda x, w: torch.nn.functional.linear(x, w.T, w[0]),
    "statistics": lambda x, w: (x - x.mean(0)) / x.var(0).sqrt() + x.std(1, unbiased=False, keepdim=True) + x.sum(),
    "extrema": lambda x, w: x.amax(1) + x.max(1).values + x.max(),
    "softmax": lambda x, w: torch.softmax(x, 1) + torch.log_softmax(x, 0) + torch.logsumexp(x, 1, keepdim=True),
    "choices": lambda x, w: torch.where(x > 0, x, 0.1 * x) + x.clamp(-1, 1) + x.masked_fill(x > 1, 0.0),
    "moves": lambda x, w: torch.cat([x.t().reshape(4, 3), x.flip(1)], 1)[1:, ::2].permute(1, 0).unsqueeze(1).squeeze(),
    "parts": lambda x, w: torch.stack([p.sum() for p in x.split(2)] + [r[0] for r in x.unbind(0)]),
    "gathered": lambda x, w: (
        x[torch.tensor([0, 2])] + x.gather(1, (x[:2] > 0).long()) + x.index_select(0, torch.tensor([1, 1]))
    ),
    "added": lambda x, w: x.index_add(0, torch.tensor([1, 1]), x[:2] * 2) + torch.nn.functional.gelu(x),
    "convolved": lambda x, w: torch.nn.functional.conv1d(x.t()[None], w[None], w[0, :1], stride=2, padding=1),
    "in place": lambda x, w: (x * 2).add_(1).mul_(x).tanh_(),
    "expanded": lambda x, w: w[:, :1].t().expand(4, 3) * x.roll(1, 0).tril(),
}


@pytest.mark.parametrize("name", list(FORWARDS))
def test_what_was_recorded_gives_the_same_numbers_in_jax(name):
    oracle = TorchOracle(lambda: lambda args: FORWARDS[name](args["x"], args["w"]), ("x", "w"), torch.device("cpu"))
    with jax.enable_x64(True):
        forward = recorded(oracle, {"x": x, "w": w})
        (y,) = jax.jit(forward)({"x": x, "w": w})
    exact = FORWARDS[name](torch.from_numpy(x), torch.from_numpy(w))
    np.testing.assert_allclose(np.asarray(y), exact.numpy(), rtol=1e-12, atol=1e-13)
