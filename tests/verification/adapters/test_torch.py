"""PyTorch targets: what their own backward pass gives, beside PyTorch's autograd through the body of forward."""

import itertools
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.verification.adapters.judge import errors
from tinynet.verification.adapters.subject import MISSING, Malformed, TargetError

torch = pytest.importorskip("torch")
from tinynet.verification.adapters.torch import adapt_torch  # noqa: E402

Function, nn = torch.autograd.Function, torch.nn
NUMBERS = itertools.count()
rng = np.random.default_rng(12)
x, w, b = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)


def adapt(target, inputs=None, params=None):
    return adapt_torch(target, inputs, params, np.random.default_rng(1))


def function(forward, backward, **more):
    """A Function of two static methods."""
    return type("Made", (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward), **more})


def saved(f):
    """A forward pass that saves its tensors."""

    def forward(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return f(*tensors)

    return forward


def of_saved(g):
    return lambda ctx, *dy: g(*dy, *ctx.saved_tensors)


def cube(g):
    return function(saved(lambda x: x**3), of_saved(g))


def linear(g):
    return function(saved(lambda x, w, b: x @ w.T + b), of_saved(g))


def with_constants(g):
    def forward(ctx, x, power, name="p", negate=False, extra=None):
        ctx.save_for_backward(x)
        ctx.power = power
        return (-1 if negate else 1) * x**power

    return function(forward, lambda ctx, dy: g(dy, *ctx.saved_tensors, ctx.power))


def only_what_is_needed(order):
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dx = dy @ w if ctx.needs_input_grad[order[0]] else None
        return dx, dy.T @ x if ctx.needs_input_grad[order[1]] else None

    return function(saved(lambda x, w: x @ w.T), backward)


def in_place(g):
    def forward(ctx, x):
        x.mul_(3.0).exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    return function(forward, of_saved(g))


def largest(g):
    def forward(x):
        return x.max(1)

    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.shape = inputs[0].shape

    def backward(ctx, dy, _):
        return g(torch.zeros(ctx.shape, dtype=dy.dtype), *ctx.saved_tensors, dy)

    return function(forward, backward, setup_context=staticmethod(setup_context))


def several(g):
    return function(saved(lambda x: (x.sin(), x.cos())), of_saved(g))


def on_numpy(g):
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    return function(forward, of_saved(g))


def written_into_empty(g):
    def forward(ctx, x):
        y = torch.empty_like(x)
        y[:, 0] = x[:, 0] ** 2
        y[:, 1:] = torch.sinh(x[:, 1:])
        torch.mul(y, 2.0, out=y)
        ctx.save_for_backward(x)
        return y

    return function(forward, lambda ctx, dy: g(dy, ctx.saved_tensors[0]))


def sinh_slope(x):
    return 2 * torch.cat([2 * x[:, :1], x[:, 1:].cosh()], dim=1)


def with_statistics(g):
    """The largest magnitude is a constant: `detach` in the body of a Function."""

    def forward(ctx, x):
        s = x.abs().max().detach()
        ctx.save_for_backward(x, s)
        return torch.tanh(x / s)

    return function(forward, of_saved(g))


def in_a_module(g):
    class Cubes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.rule = nn.Linear(3, 4, bias=False, dtype=torch.float64), cube(g).apply
            self.norm = nn.BatchNorm1d(4, dtype=torch.float64)

        def forward(self, x, scale=2.0):
            return {"y": self.rule(self.norm(self.inner(x))) * scale, "none": None}

    torch.manual_seed(2)
    return Cubes()


def hooked(g):
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    module[0].weight.register_hook(g)
    return module


def module_hooked(g):
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[1].register_full_backward_hook(lambda module, dx, dy: tuple(map(g, dx)))
    return module


def operator(g):
    @torch.library.custom_op(f"tinynet_tests::sine_{next(NUMBERS)}", mutates_args=())
    def sine(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    sine.register_autograd(of_saved(g), setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    return sine


def nested(g):
    """A Function in whose body another one runs, with a wrong rule that is not used."""
    inner = cube(lambda g, x: 7 * g).apply
    return function(saved(lambda x: inner(torch.sin(x))), of_saved(g))


FORMS = {
    # form: (how it is made, inputs, the right backward pass, three wrong ones)
    "Function": (
        cube,
        x,
        lambda g, x: 3 * g * x**2,
        [lambda g, x: 2 * g * x**2, lambda g, x: 3 * g * x, lambda g, x: None],
    ),
    "Function of several tensors": (
        linear,
        (x, w, b),
        lambda g, x, w, b: (g @ w, g.T @ x, g.sum(0)),
        [
            lambda g, x, w, b: (g @ w, g.T @ x, g.mean(0)),
            lambda g, x, w, b: (g @ w, g.T @ x / len(x), g.sum(0)),
            lambda g, x, w, b: (g @ w, (g.T @ x).T, g.sum(0)),
        ],
    ),
    "non-tensor arguments": (
        with_constants,
        (x, 3, "cubed", True),
        lambda g, x, p: (-g * p * x ** (p - 1), None, None, None),
        [
            lambda g, x, p: (g * p * x ** (p - 1), None, None, None),
            lambda g, x, p: (-g * x ** (p - 1), None, None, None),
            lambda g, x, p: (-g * p * x**p, None, None, None),
        ],
    ),
    "written in place, mark_dirty": (
        in_place,
        x,
        lambda g, y: 3 * g * y,
        [lambda g, y: g * y, lambda g, y: 3 * g, lambda g, y: 3 * g * y.exp()],
    ),
    "setup_context, an output without gradient": (
        largest,
        x,
        lambda zeros, i, g: zeros.scatter(1, i[:, None], g[:, None]),
        [
            lambda zeros, i, g: zeros.scatter(1, i[:, None], 2 * g[:, None]),
            lambda zeros, i, g: zeros + g[:, None],
            lambda zeros, i, g: zeros.scatter(1, i[:, None].flip(0), g[:, None]),
        ],
    ),
    "two outputs": (
        several,
        x,
        lambda s, c, x: s * x.cos() - c * x.sin(),
        [
            lambda s, c, x: s * x.cos() + c * x.sin(),
            lambda s, c, x: s * x.cos(),
            lambda s, c, x: c * x.cos() - s * x.sin(),
        ],
    ),
    "NumPy inside": (
        on_numpy,
        x,
        lambda g, y: g * (1 - y * y),
        [lambda g, y: g * (1 - y), lambda g, y: 1.0001 * g * (1 - y * y), lambda g, y: g * y],
    ),
    "outputs written into empty": (
        written_into_empty,
        x,
        lambda g, x: g * sinh_slope(x),
        [
            lambda g, x: g * sinh_slope(x) / 2,
            lambda g, x: g * x.cosh() * 2,
            lambda g, x: g * sinh_slope(x).flip(1),
        ],
    ),
    "detach in the body": (
        with_statistics,
        x,
        lambda g, x, s: g * (1 - torch.tanh(x / s) ** 2) / s,
        [
            lambda g, x, s: g * (1 - torch.tanh(x / s) ** 2),
            lambda g, x, s: g * (1 - torch.tanh(x) ** 2) / s,
            lambda g, x, s: g,
        ],
    ),
    "Function inside a Function": (
        nested,
        x,
        lambda g, x: 3 * g * x.sin() ** 2 * x.cos(),
        [lambda g, x: 7 * g * x.cos(), lambda g, x: 3 * g * x.sin() ** 2, lambda g, x: 3 * g * x**2 * x.cos()],
    ),
    "module that uses a Function": (
        in_a_module,
        (x,),
        lambda g, x: 3 * g * x**2,
        [lambda g, x: 2 * g * x**2, lambda g, x: 3 * g * x, lambda g, x: 3 * g.mean(0) * x**2],
    ),
    "hook on a parameter": (
        hooked,
        x,
        lambda g: g,
        [lambda g: 2 * g, lambda g: g.clamp(-0.1, 0.1), lambda g: g.sign()],
    ),
    "hook on a module": (
        module_hooked,
        x,
        lambda g: g,
        [lambda g: g / 2, lambda g: -g, lambda g: g - g.mean()],
    ),
    "operator of torch.library": (
        operator,
        x,
        lambda g, x: g * x.cos(),
        [lambda g, x: g * x.sin(), lambda g, x: -g * x.cos(), lambda g, x: g],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_right_backward_pass_agrees_with_the_oracle(form):
    make, inputs, right, _ = FORMS[form]
    subject = adapt(make(right), inputs)
    assert max(errors(subject).values()) < 1e-13
    assert max(errors(subject, seed=1, scale=0.3).values()) < 1e-13
    assert subject.library == "torch"


@pytest.mark.parametrize(
    ("form", "which"), [(form, i) for form, (*_, wrong) in FORMS.items() for i in range(len(wrong))]
)
def test_a_wrong_backward_pass_does_not(form, which):
    make, inputs, _, wrong = FORMS[form]
    assert max(errors(adapt(make(wrong[which]), inputs)).values()) > 1e-5


def test_a_function_that_is_not_torchs_is_none_of_its_business():
    assert adapt(lambda x: x, x) is None
    assert adapt(object(), x) is None
    assert adapt((np.sin, np.cos), x) is None


def test_torch_is_not_imported_for_other_targets():
    code = "import sys, numpy as np; from tinynet.verification.adapters import adapt; pair = np.sin, lambda a, dy: dy; "
    code += "adapt(pair, inputs=(3, 2), params=None, loss=None, rng=np.random.default_rng(0)); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_and_values_of_arguments_and_parameters():
    subject = adapt(linear(lambda g, x, w, b: (g @ w, g.T @ x, g.sum(0))), (x, w, b))
    assert subject.wrt == subject.inputs == tuple(subject.args)

    class Named(Function):
        @staticmethod
        def forward(ctx, x, weight, index, eps=1e-3):
            ctx.save_for_backward(weight)
            return x * weight[index] + eps

        @staticmethod
        def backward(_, dy):
            return dy, dy, None, None

    for inputs in ((x, x, np.arange(5)), {"weight": x, "x": x, "index": np.arange(5)}, (x, x, torch.arange(5), 2.0)):
        subject = adapt(Named.apply, inputs)
        assert subject.name.endswith("Named")
        assert subject.inputs == ("x", "weight", "index")
        assert subject.wrt == ("x", "weight")
        np.testing.assert_array_equal(subject.args["x"], x)
    module = adapt(nn.Linear(3, 2), x, {"weight": np.ones((2, 3))})
    assert (module.inputs, module.wrt) == (("input",), ("input", "params.weight", "params.bias"))
    assert np.all(module.args["params.weight"] == 1)
    assert {a.dtype for a in module.args.values()} == {np.dtype(float)}


def test_what_does_not_fit_is_refused_with_the_names():
    right = cube(lambda g, x: 3 * g * x**2)
    with pytest.raises(TargetError, match=r"params= has W, and a function has no parameters"):
        adapt(right, x, {"W": w})
    with pytest.raises(TargetError, match=r"Linear: params= has wight of shape \(2, 3\); expected one of weight, bias"):
        adapt(nn.Linear(3, 2), x, {"wight": np.ones((2, 3))})
    with pytest.raises(TargetError, match=r"weight of shape \(3, 2\); expected \(2, 3\)"):
        adapt(nn.Linear(3, 2), x, {"weight": np.ones((3, 2))})
    with pytest.raises(TargetError, match=r"Linear: the forward pass raises RuntimeError: .* at input \(5, 4\)"):
        adapt(nn.Linear(3, 2), rng.standard_normal((5, 4)))


def test_gradients_have_the_form_in_which_they_were_returned():
    def grads(g):
        subject = adapt(linear(g), (x, w, b))
        session = subject.start()
        y, context = session.forward(subject.args)
        return list(session.backward(context, np.ones_like(y)).values())

    dx, dw, db = grads(lambda g, x, w, b: (g @ w, None, g))  # PyTorch sums db itself
    assert (dx.shape, dw) == (x.shape, None)
    np.testing.assert_allclose(db, np.full(4, 5.0))
    dx, dw, db = grads(lambda g, x, w, b: (g @ w, x.T @ g, g))  # and refuses the shape of dw
    assert (dx.shape, dw.shape, db.shape) == (x.shape, (3, 4), (4,))
    assert grads(lambda g, x, w, b: (g @ w, g.T @ x))[2] is MISSING


def test_the_session_shares_memory_so_that_what_is_written_into_is_seen():
    def backward(ctx, g):
        return g.mul_(2)

    subject = adapt(function(lambda ctx, x: 2 * x, backward), x)
    session, given, dy = subject.start(), {"x": x.copy()}, np.ones_like(x)
    _, context = session.forward(given)
    session.backward(context, dy)
    assert np.all(dy == 2)
    quiet = adapt(function(lambda ctx, x: x.mul_(2) * 1.0, lambda ctx, g: 2 * g), x).start()
    quiet.forward(given)
    np.testing.assert_array_equal(given["x"], 2 * x)
    told = adapt(in_place(lambda g, y: 3 * g * y), x).start()
    given = {"x": x.copy()}
    told.forward(given)
    np.testing.assert_array_equal(given["x"], x)


def test_each_input_is_also_asked_for_alone():
    right = adapt(only_what_is_needed((0, 1)), (x, w))
    assert [label for label, _ in right.variants(rng)] == ["only arg0 needs a gradient", "only arg1 needs a gradient"]
    assert all(max(errors(v).values()) < 1e-13 for _, v in right.variants(rng))
    swapped = adapt(only_what_is_needed((1, 0)), (x, w))
    assert max(errors(swapped).values()) < 1e-13  # invisible where all gradients are needed
    assert all(max(errors(v).values()) == np.inf for _, v in swapped.variants(rng))


def test_detach_is_read_in_the_way_that_makes_the_gradient_right_and_noted_with_its_line():
    honoured = adapt(with_statistics(lambda g, x, s: g * (1 - torch.tanh(x / s) ** 2) / s), x)
    assert "test_torch.py:" in honoured.notes[0]
    assert honoured.notes[0].endswith("stops the derivative")

    def old_manner(ctx, x):
        ctx.save_for_backward(x)
        with torch.no_grad():
            return x.data.sin() * 2

    ignored = adapt(function(old_manner, of_saved(lambda g, x: 2 * g * x.cos())), x)
    assert max(errors(ignored).values()) < 1e-13
    assert ignored.notes[0].endswith("in the body of a Function, stops nothing")
    wrong = adapt(function(old_manner, of_saved(lambda g, x: g * x.cos())), x)
    assert max(errors(wrong).values()) > 0.1

    class Target(nn.Module):
        def forward(self, x):
            return x * x.sin().detach()

    module = adapt(Target(), x)
    assert max(errors(module).values()) < 1e-13
    assert module.notes[0].endswith("stops the derivative")


def test_where_values_leave_torch_differences_judge_and_say_where():
    def partly(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.tensor(np.sinh(x.detach().numpy()))

    subject = adapt(function(partly, of_saved(lambda g, x: g * (x.sinh() + x * x.cosh()))), x)
    assert max(errors(subject).values()) < 1e-13
    assert "test_torch.py:" in subject.notes[0]
    assert "differences" in subject.make_oracle(subject).text or not subject.make_oracle(subject).text
    half = adapt(function(partly, of_saved(lambda g, x: g * x.sinh())), x)
    assert max(errors(half).values()) > 0.1


def test_control_by_values_is_no_reason_for_differences():
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp() if x.max().item() > 0 and float(x.sum()) < 1e9 else x

    subject = adapt(function(forward, of_saved(lambda g, x: g * x.exp())), x)
    assert max(errors(subject).values()) < 1e-13
    assert subject.notes == ()


def test_float32_inside_is_followed_in_float64():
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x.float()).to(torch.float32) * torch.ones(3)

    subject = adapt(function(forward, of_saved(lambda g, x: g * (1 - torch.tanh(x) ** 2))), x)
    exact = subject.make_oracle(subject)({"x": x}, (np.ones_like(x),)).grads["x"]
    np.testing.assert_allclose(exact, 1 - np.tanh(x) ** 2, rtol=1e-13)


def test_digits_that_a_forward_pass_loses_in_float32_are_no_other_forward_pass():
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return -(1 - torch.sigmoid(z)).log().sum()

    report = tn.verify(function(forward, of_saved(lambda g, z: g * torch.sigmoid(z))), inputs=x)
    assert report.verdict == "PASS", report
    assert any("y: digits are lost" in note for note in report.notes)


@pytest.mark.parametrize(("steps", "verdict"), [(60, "PASS"), (4, "FAIL")])
def test_what_ends_when_it_is_close_enough_is_known_as_well_as_that(steps, verdict):
    def forward(ctx, z, w):
        h = torch.zeros_like(z)
        while (h - (new := torch.tanh(z + h @ w))).abs().max() > 1e-7:
            h = new
        ctx.save_for_backward(new, w)
        return new

    def backward(ctx, g):
        h, w = ctx.saved_tensors
        v = g
        for _ in range(steps):
            v = g + (v * (1 - h * h)) @ w.T
        u = v * (1 - h * h)
        return u, h.T @ u

    w = 0.2 * np.random.default_rng(0).standard_normal((3, 3))
    report = tn.verify(function(forward, backward), inputs=(x, w))
    assert report.verdict == verdict, report
    if verdict == "PASS":
        assert "PASS to 1e-05" in str(report)


@pytest.mark.parametrize(("factor", "verdict"), [(1, "PASS"), (1.001, "FAIL")])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_is_cast_to_float32_inside_is_judged_in_float32(dtype, factor, verdict):
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.float().sigmoid().to(x.dtype)

    def backward(ctx, g):
        y = ctx.saved_tensors[0].float().sigmoid()
        return factor * (g.float() * y * (1 - y)).to(g.dtype)

    report = tn.verify(function(forward, backward), inputs=x.astype(dtype))
    assert report.verdict == verdict, report
    assert "autograd" in report.oracle


def test_code_that_takes_float32_alone_has_a_float64_oracle():
    weight = torch.ones(3, 2)
    subject = adapt(function(saved(lambda x: torch.tanh(x @ weight)), of_saved(lambda g, x: g @ weight.T)), x)
    exact = subject.make_oracle(subject)(subject.args, (np.ones((5, 2)),)).grads["arg0"]
    slope = 1 - np.tanh(x.sum(1, keepdims=True)) ** 2
    np.testing.assert_allclose(exact, np.repeat(2 * slope, 3, 1), rtol=1e-13)


def test_the_parts_of_a_module_are_its_functions_with_what_reaches_them():
    module = in_a_module(lambda g, x: 2 * g * x**2)
    subject = adapt(module, (x,))
    [(name, part)] = subject.parts()
    assert name == part.name
    assert part.args["arg0"].shape == (5, 4)
    assert errors(part)["arg0"] == pytest.approx(1 / 3)
    assert adapt(nn.Linear(3, 2), x).notes == (
        "nothing in it was derived by hand: PyTorch's autograd is compared with itself",
    )
    [(_, op)] = adapt(lambda x: sine(x) * 2, torch.tensor(x)).parts() if (sine := operator(lambda g, x: g)) else []
    assert errors(op)["x"] > 0.1


def test_dropout_draws_the_same_in_the_oracle_and_leaves_the_generator_as_it_was():
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(8, 1))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert max(errors(adapt(module, x)).values()) < 1e-13
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_lazy_and_tied_parameters():
    module = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3))
    frozen = nn.Linear(3, 2)
    frozen.bias.requires_grad_(False)
    assert set(adapt(module, x).args) == {
        "input",
        "params.0.weight",
        "params.0.bias",
        "params.1.weight",
        "params.1.bias",
    }
    assert isinstance(module[0].weight, nn.parameter.UninitializedParameter)
    subject = adapt(frozen, x)
    assert subject.wrt == ("input", "params.weight")
    assert "params.bias has requires_grad=False and is a constant" in subject.notes
    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    assert max(errors(adapt(tied, x)).values()) < 1e-13


def test_the_module_itself_stays_as_it_was():
    module = in_a_module(lambda g, x: 3 * g * x**2)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    errors(adapt(module, (x,)))
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_the_state_that_a_session_keeps_is_its_own():
    subject = adapt(nn.BatchNorm1d(3), x)
    session = subject.start()
    session.forward(subject.args)
    session.forward(subject.args)
    assert max(errors(subject).values()) < 1e-12


def test_rules_are_rules_again_afterwards_and_always_in_other_threads():
    wrong = cube(lambda g, x: 7 * g)
    base = Function.__mro__[1]
    seen = []

    def forward(ctx, x):
        def other():
            t = torch.ones(1, requires_grad=True)
            seen.append(torch.autograd.grad(wrong.apply(t), t)[0].item())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        ctx.save_for_backward(x)
        return wrong.apply(x)

    subject = adapt(function(forward, of_saved(lambda g, x: 3 * g * x**2)), x)
    assert max(errors(subject).values()) < 1e-13
    assert set(seen) == {7.0}
    assert "apply" not in vars(base)


def test_outputs_of_any_structure():
    class Many(nn.Module):
        def forward(self, a, pair):
            return {"z": (a * pair[0], [pair[1].sin(), "text", 3]), "a": a.argmax(), "b": a.exp()}

    subject = adapt(Many(), (x, (x + 1, x + 2)))
    y, _ = subject.start().forward(subject.args)
    assert [leaf.shape for leaf in jax.tree.leaves(y)] == [x.shape] * 3
    assert max(errors(subject).values()) < 1e-13


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (cube, lambda g, x: 3 * g * x**2),
        (linear, lambda g, x, w, b: (g @ w, g.T @ x, g.sum(0))),
        (in_place, lambda g, y: 3 * g * y),
    ],
)
def test_a_double_backward_that_is_right_needs_no_word(make, right):
    report = tn.verify(make(right), inputs=(x, w, b) if make is linear else x, probes=["rectangular"])
    assert report.verdict == "PASS"
    assert not any("second derivatives" in note for note in report.notes)


@pytest.mark.parametrize(
    ("backward", "said"),
    [
        (lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2, ""),
        (lambda ctx, g: 3 * g * ctx.saved_tensors[0].detach() ** 2, "are wrong by arg0"),
        (torch.autograd.function.once_differentiable(lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2), "not compared"),
    ],
    ids=["right", "silently wrong", "refused"],
)
def test_the_report_says_what_is_with_second_derivatives(backward, said):
    report = tn.verify(function(saved(lambda x: x**3), backward), inputs=x, probes=["rectangular", "batch 1"])
    assert report.verdict == "PASS"
    assert [said in note for note in report.notes if "second derivatives" in note] == [True] * bool(said)


def test_too_few_gradients_and_a_backward_pass_that_raises():
    def grads(g):
        subject = adapt(cube(g), x)
        session = subject.start()
        _, context = session.forward(subject.args)
        return session.backward(context, x)

    with pytest.raises(ZeroDivisionError):
        grads(lambda g, x: 1 / 0)
    assert issubclass(Malformed, Exception)


def test_parameters_are_contiguous_in_whatever_layout_the_arrays_are():
    subject = adapt(nn.BatchNorm1d(3), x)
    spaced = {n: np.repeat(a, 2, axis=-1)[..., ::2] for n, a in subject.args.items()}
    assert not spaced["params.weight"].flags.c_contiguous
    session, dy = subject.start(), rng.standard_normal(x.shape)
    _, context = session.forward(spaced)
    exact = subject.make_oracle(subject)(subject.args, (dy,)).grads
    for name, gradient in session.backward(context, dy).items():
        np.testing.assert_allclose(gradient, exact[name], rtol=1e-10, atol=1e-12)


class Gate(Function):
    """A gate whose `dp` lacks the factor 1 − s of the second term."""

    @staticmethod
    def forward(ctx, x, w, b):
        p = x @ w + b
        s = torch.sigmoid(p)
        ctx.save_for_backward(x, w, p, s)
        return p * s

    @staticmethod
    def backward(ctx, dy):
        x, w, p, s = ctx.saved_tensors
        if len(x) > 1000:
            return None, None, None
        dp = dy * s + dy * p * s
        return dp @ w.T, x.T @ dp, dp.sum(0)


def test_the_place_of_a_fault_is_a_statement_of_the_backward_that_ran():
    report = tn.verify(Gate, inputs=((5, 4), (4, 3), (3,)), dtype="float64")
    (finding,) = report.findings
    assert (finding.gradient, finding.also) == ("x", ("w", "b"))
    assert finding.where_text == "dp = dy * s + dy * p * s"


def asked_for(index):
    """x Wᵀ + b, whose gradient of b is returned if the argument of that index needs one."""

    def backward(ctx, dy):
        x, w, _ = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return dy @ w if needs[0] else None, dy.T @ x if needs[1] else None, dy.sum(0) if needs[index] else None

    return function(saved(lambda x, w, b: x @ w.T + b), backward)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_gradient_that_is_asked_for_alone_must_be_returned(index):
    report = tn.verify(asked_for(index), inputs=(x, w, b), probes=["rectangular"])
    assert report.verdict == ("PASS" if index == 2 else "FAIL"), report
    for finding in report.findings:
        assert (finding.gradient, finding.fault) == ("arg2", "missing")
        assert "None is returned where only arg2 needs a gradient" in str(finding)


class Gain(nn.Module):
    """A parameter of no axis."""

    def __init__(self, factor):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.rule = function(saved(lambda x, g: x * g), lambda ctx, dy: _of_gain(*ctx.saved_tensors, dy, factor))

    def forward(self, x):
        return self.rule.apply(torch.tanh(x), self.gain)


def _of_gain(x, g, dy, factor):
    return dy * g, factor * (dy * x).sum()


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (2.0, "FAIL")])
def test_a_parameter_of_no_axis(factor, verdict):
    report = tn.verify(Gain(factor), inputs=x)
    assert report.verdict == verdict, report
    assert report.compared == ("x", "params.gain")


def test_a_gradient_that_is_returned_only_where_it_is_asked_for_alone_is_missing():
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w, None if ctx.needs_input_grad[0] else dy.T @ x

    (finding,) = tn.verify(function(saved(lambda x, w: x @ w.T), backward), inputs=(x, w)).findings
    assert (finding.gradient, finding.fault) == ("arg1", "missing")


class Rows(nn.Module):
    """Rows of W by their numbers: no input has a gradient."""

    def __init__(self, factor):
        def backward(ctx, dy):
            i, W = ctx.saved_tensors
            return None, torch.zeros_like(W).index_add(0, i, factor * dy * 2 * W[i])

        super().__init__()
        self.W, self.rows = nn.Parameter(torch.tensor(w)), function(saved(lambda i, W: W[i] ** 2), backward)

    def forward(self, i):
        return self.rows.apply(i, self.W)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_module_of_integers_alone_is_judged_by_its_parameters(factor):
    report = tn.verify(Rows(factor), inputs=np.array([0, 2, 2]), probes=["rectangular"])
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


class Product(torch.autograd.Function):
    @staticmethod
    def forward(_, x, w):
        return x @ w

    @staticmethod
    def backward(_, dy):
        return dy, dy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.ones((5, 4)),), r"inputs= has 1 entry, and the forward pass takes \(x, w\)"),
        ((np.ones((5, 4)),) * 2, r"raises RuntimeError.* at x \(5, 4\), w \(5, 4\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_what_to_do(given, message):
    with pytest.raises(tn.TargetError, match=message):
        tn.verify(Product, inputs=given)


def test_a_module_may_be_given_as_its_class():
    report = tn.verify(nn.Tanh, inputs=np.ones((5, 4)), probes=["rectangular", "batch 1"])
    assert report.verdict == "PASS"


class Normalized(torch.autograd.Function):
    factor = 1

    @staticmethod
    def forward(ctx, x, g, b, m, v):
        mean, var = x.mean(0), x.var(0, unbiased=False)
        m.mul_(0.9).add_(0.1 * mean)
        v.mul_(0.9).add_(0.1 * var)
        i = torch.rsqrt(var + 1e-3)
        n = (x - mean) * i
        ctx.save_for_backward(n, i, g)
        return g * n + b

    @classmethod
    def backward(cls, ctx, dy):
        n, i, g = ctx.saved_tensors
        d = dy * g
        dx = i * (d - d.mean(0) - n * (d * n).mean(0))
        return dx, cls.factor * (dy * n).sum(0), dy.sum(0), None, None


class WronglyNormalized(Normalized):
    factor = 2


@pytest.mark.parametrize(("target", "verdict"), [(Normalized, "PASS"), (WronglyNormalized, "FAIL")])
def test_running_statistics_that_are_handed_in_may_be_updated(target, verdict):
    statistics = (rng.standard_normal((5, 3)), *rng.standard_normal((2, 3)), np.zeros(3), np.ones(3))
    report = tn.verify(target, inputs=statistics, probes=["rectangular", "batch 1", "batch 2", "state", "layout"])
    assert (report.verdict, report.compared) == (verdict, ("x", "g", "b")), report
    assert "m, v: written into and without a gradient, as running statistics are" in report.notes


def tanh(x, w):
    return torch.tanh(x @ w)


def tanh_by_hand(factor):
    def backward(args, dy):
        x, w = args
        dz = dy * (1 - tanh(x, w) ** 2)
        return dz @ w.T, factor * x.T @ dz

    return backward


def static(factor):
    class Layer:
        @staticmethod
        def forward(x, w):
            return tanh(x, w), (x, w)

        @staticmethod
        def backward(dy, cache):
            return tanh_by_hand(factor)(cache, dy)

    return Layer


BY_HAND = {
    "pair": lambda factor: (tanh, tanh_by_hand(factor)),
    "static methods": static,
    "(y, backprop)": lambda factor: lambda x, w: (tanh(x, w), lambda dy: tanh_by_hand(factor)((x, w), dy)),
    "(E, gradient)": lambda factor: lambda x, w: (tanh(x, w).sum(), tanh_by_hand(factor)((x, w), torch.tensor(1.0))),
}


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("form", BY_HAND)
def test_functions_of_tensors_with_a_backward_pass_by_hand(form, factor):
    report = tn.verify(BY_HAND[form](factor), inputs=(torch.tensor(x), torch.tensor(w.T)))
    assert report.oracle.startswith("PyTorch's own autograd"), report
    assert report.compared == ("x", "w")
    assert [(f.gradient, f.fault, f.factor) for f in report.findings] == [("w", "scaled", "3")][: factor - 1], report


def test_an_object_that_may_keep_tensors_is_not_taken_for_pytorchs_own():
    class Layer:
        def __call__(self, x):
            return torch.sin(x)

        def backward(self, dy):
            return 3 * dy

    with pytest.raises(tn.TargetError, match=r"give a torch.autograd.Function, a pair"):
        tn.verify(Layer(), inputs=torch.tensor(x))


class Both(Function):
    """x w and the sum of x; it is given None for the output that is not used."""

    right = True

    @staticmethod
    def forward(ctx, x, w):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        return x @ w.T, x.sum()

    @classmethod
    def gradients(cls, ctx, g, h):
        x, w = ctx.saved_tensors
        if g is None:
            return (h * torch.ones_like(x), None) if cls.right else (None, None)
        return g @ w + (0 if h is None else h), g.T @ x

    @staticmethod
    def backward(ctx, g, h):
        return Both.gradients(ctx, g, h)


class Lost(Both):
    right = False

    @staticmethod
    def backward(ctx, g, h):
        return Lost.gradients(ctx, g, h)


def test_an_output_may_be_left_unused():
    report = tn.verify(Both, inputs=(x, w), probes=["rectangular", "cotangents"])
    assert report.verdict == "PASS", report
    (finding,) = tn.verify(Lost, inputs=(x, w), probes=["rectangular", "cotangents"]).findings
    assert finding.gradient == "x"
    assert "dy of output 1 alone" in str(finding)
