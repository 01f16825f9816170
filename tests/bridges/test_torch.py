"""`to_torch`: the hand-derived backward inside PyTorch, against its own autograd and gradcheck."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest

import tinynet as tn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: tinynet.to_torch is NOT tested here")

NET = tn.Sequential(tn.Linear(4, 6), tn.Sigmoid(), tn.Linear(6, 3), tn.Sigmoid())


def params(dtype=np.float64):
    return NET.init(np.random.default_rng(5), dtype)


def inputs(dtype=np.float64, **options):
    return torch.tensor(np.random.default_rng(6).normal(size=(5, 4)).astype(dtype), **options)


@dataclass(frozen=True)
class Same(tn.Layer):
    """Hands its input through, views and all."""

    def forward(self, params, x):
        return x, x

    def backward(self, params, x, dy):
        return dy, {}


@pytest.mark.parametrize("layer", [NET, tn.Linear(4, 3), tn.Sigmoid(), Same()], ids=repr)
def test_gradcheck_passes_for_the_input_and_every_parameter(layer):
    module = tn.to_torch(layer, layer.init(np.random.default_rng(1), np.float64))
    names = [name for name, _ in module.named_parameters()]

    def f(x, *weights):
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(f, (inputs(requires_grad=True), *module.parameters()))


def test_gradcheck_fails_for_a_wrong_backward():
    @dataclass(frozen=True)
    class Wrong(tn.Layer):
        def forward(self, params, x):
            return 2 * x, None

        def backward(self, params, cache, dy):
            return dy, {}

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(tn.to_torch(Wrong()), inputs(requires_grad=True))


def test_training_ends_where_pytorch_alone_ends():
    start = params()
    by_hand = tn.to_torch(NET, copy.deepcopy(start))
    by_torch = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Sigmoid(), torch.nn.Linear(6, 3), torch.nn.Sigmoid())
    by_torch.double()
    with torch.no_grad():
        for i in (0, 2):
            by_torch[i].weight.copy_(torch.tensor(start[i]["W"]))
            by_torch[i].bias.copy_(torch.tensor(start[i]["b"]))
    x, y = inputs(), torch.tensor(np.random.default_rng(7).uniform(size=(5, 3)))
    for model in (by_hand, by_torch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(100):
            optimizer.zero_grad()
            (0.5 * (model(x) - y) ** 2).sum().backward()
            optimizer.step()
    trained = by_hand.params()
    assert not np.allclose(trained[0]["W"], start[0]["W"], atol=1e-2)
    for i in (0, 2):
        np.testing.assert_allclose(trained[i]["W"], by_torch[i].weight.detach().numpy(), rtol=1e-10)
        np.testing.assert_allclose(trained[i]["b"], by_torch[i].bias.detach().numpy(), rtol=1e-10)


def test_parameters_share_memory_with_the_arrays_where_pytorch_can_use_them():
    p = params()
    module = tn.to_torch(NET, p)
    assert [name for name, _ in module.named_parameters()] == ["0_W", "0_b", "2_W", "2_b"]
    assert all(np.shares_memory(p[i][k], module.params()[i][k]) for i in (0, 2) for k in "Wb")
    torch.nn.init.zeros_(getattr(module, "0_W"))
    assert not p[0]["W"].any()


@pytest.mark.parametrize(
    "layout",
    [
        lambda W: W[::-1][::-1][::-1],
        lambda W: W.astype(W.dtype.newbyteorder(">")),
        lambda W: np.broadcast_to(W[:1], W.shape),
        lambda W: np.asfortranarray(W),
        lambda W: np.repeat(W, 2, axis=1)[:, ::2],
    ],
    ids=["reversed", "big-endian", "broadcast", "Fortran", "strided"],
)
def test_parameters_of_any_layout_keep_their_values(layout):
    layer = tn.Linear(4, 3)
    W = layout(layer.init(np.random.default_rng(0), np.float64)["W"])
    module = tn.to_torch(layer, {"W": W, "b": np.zeros(3)})
    np.testing.assert_array_equal(module.params()["W"], W)
    np.testing.assert_allclose(module(inputs()).detach().numpy(), inputs().numpy() @ W.T)


def test_parameters_whose_paths_read_alike_are_kept_apart():
    @dataclass(frozen=True)
    class Twice(tn.Layer):
        def init(self, rng, dtype=np.float32):
            return {"a": {"b": np.ones(1, dtype)}, "a_b": np.full(1, 2, dtype)}

        def forward(self, params, x):
            return x * params["a"]["b"] + params["a_b"], (x, params)

        def backward(self, params, cache, dy):
            x, params = cache
            return dy * params["a"]["b"], {"a": {"b": (dy * x).sum(axis=0)}, "a_b": dy.sum(axis=0)}

    module = tn.to_torch(Twice())
    assert module.params() == {"a": {"b": [1]}, "a_b": [2]}
    module(torch.full((3, 1), 5.0)).sum().backward()
    assert {name: p.grad.item() for name, p in module.named_parameters()} == {"a_b": 15, "a_b_": 3}


def test_a_state_dict_goes_round_and_the_module_copies():
    module, other = tn.to_torch(NET, params()), tn.to_torch(NET, params(), seed=0)
    torch.nn.init.ones_(getattr(module, "2_W"))
    other.load_state_dict(module.state_dict())
    assert torch.equal(copy.deepcopy(other)(inputs()), module(inputs()))


@pytest.mark.parametrize("layer", [Same(), tn.Linear(4, 3), tn.Sigmoid()], ids=repr)
def test_overwriting_the_output_changes_neither_the_input_nor_the_gradient(layer):
    module = tn.to_torch(layer, layer.init(np.random.default_rng(0), np.float64))
    x = inputs(requires_grad=True)
    (expected,) = torch.autograd.grad(module(x).sum(), x)
    y = module(x)
    with torch.no_grad():
        y.zero_()
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    assert torch.equal(x, inputs())


def test_overwriting_the_input_or_a_parameter_before_backward_is_noticed():
    module = tn.to_torch(NET, params())
    for tensor in (inputs(requires_grad=True), getattr(module, "0_W")):
        y = module(tensor if tensor.shape == (5, 4) else inputs(requires_grad=True))
        with torch.no_grad():
            tensor.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_gradients_accumulate_without_touching_what_was_handed_in():
    x = inputs(requires_grad=True)
    dy = torch.ones(5, 4, dtype=torch.float64)
    for _ in range(2):
        tn.to_torch(Same())(x).backward(dy)
    assert torch.equal(dy, torch.ones_like(dy))
    assert torch.equal(x.grad, 2 * dy)


def test_no_gradient_is_taken_where_none_is_asked_for():
    module = tn.to_torch(NET, params())
    module.requires_grad_(False)
    assert not module(inputs()).requires_grad
    x = inputs(requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in module.parameters())


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"to_torch: layer is the class .*; expected an instance of tinynet\.Layer"):
        tn.to_torch(tn.Sigmoid)
    with pytest.raises(ValueError, match=r'to_torch: params\["W"\] has shape \(3, 4\); expected \(4, 3\)'):
        tn.to_torch(tn.Linear(3, 4), tn.Linear(4, 3).init(np.random.default_rng(0)))
    module = tn.to_torch(NET, params())
    with pytest.raises(TypeError, match=r"x is torch.float32; expected torch.float64"):
        module(inputs(np.float32))
    with pytest.raises(ValueError, match=r"x is on meta; expected the CPU"):
        module(torch.empty(5, 4, device="meta", dtype=torch.float64))
    with pytest.raises(ValueError, match=r"x has shape \(5, 3\); expected \(\.\.\., 4\)"):
        module(inputs()[:, :3])
    x = inputs(requires_grad=True)
    y = module(x).sum()
    with pytest.raises(RuntimeError, match="a derivative of the derivative was asked for"):
        torch.autograd.grad(y, x, create_graph=True)


def test_a_layer_that_draws_does_so_after_train_only():
    net = tn.Sequential(tn.Linear(4, 50), tn.Dropout(0.5))
    module, x = tn.to_torch(net, net.init(np.random.default_rng(0), np.float64)), inputs()
    torch.manual_seed(1)
    first, second = module(x).detach(), module(x).detach()
    torch.manual_seed(1)
    assert torch.equal(module(x), first)
    assert not torch.equal(first, second)
    assert 0.3 < (first == 0).double().mean() < 0.7
    expected = tn.predict(net, module.params(), x.numpy())
    np.testing.assert_array_equal(module.eval()(x).detach().numpy(), expected)
    kept = first != 0
    np.testing.assert_allclose(first[kept], 2 * expected[kept.numpy()])


EXPORTED = [
    tn.Sequential(tn.Linear(4, 6), tn.ReLU(), tn.Dropout(0.5), tn.Linear(6, 2), tn.Softmax()),
    tn.Sequential(tn.LayerNorm(4), tn.Residual(tn.Sequential(tn.Linear(4, 4), tn.Tanh())), tn.RMSNorm(4)),
    tn.Sequential(tn.GELU(), tn.SiLU(), tn.Softplus(), tn.Sigmoid()),
]
SEQUENCES = [tn.RNN(4, 3), tn.LSTM(4, 3), tn.GRU(4, 3), tn.MultiHeadAttention(4, 2, causal=True)]


@pytest.mark.parametrize("net", EXPORTED, ids=repr)
def test_it_exports_for_any_number_of_samples(net):
    module = tn.to_torch(net, net.init(np.random.default_rng(0))).eval()
    shapes = ({0: torch.export.Dim("samples", min=1)},)
    program = torch.export.export(module, (inputs(np.float32),), dynamic_shapes=shapes).module()
    x = np.random.default_rng(1).normal(size=(17, 4)).astype(np.float32)
    expected = tn.predict(net, module.params(), x)
    np.testing.assert_allclose(program(torch.tensor(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", SEQUENCES, ids=repr)
def test_layers_of_sequences_export(net):
    module = tn.to_torch(net, net.init(np.random.default_rng(0))).eval()
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    program = torch.export.export(module, (torch.tensor(x),)).module()
    expected = tn.predict(net, module.params(), x)
    np.testing.assert_allclose(program(torch.tensor(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_state_of_layers_is_that_of_the_buffers():
    net = tn.Sequential(tn.BatchNorm(4, momentum=0.25), tn.Linear(4, 2))
    x = np.random.default_rng(1).normal(3, 2, size=(50, 4))
    result = tn.fit(net, tn.SquaredError(), x, x[:, :2], optimizer=tn.SGD(1e-3), epochs=3)
    module = tn.to_torch(net, result.params, state=result.state.layers).eval()
    np.testing.assert_array_equal(module(torch.tensor(x)).detach().numpy(),
                                  tn.predict(net, result.params, x, state=result.state.layers))  # fmt: skip
    assert "state_0_mean" in module.state_dict()
    exported = torch.export.export(module, (torch.tensor(x),)).module()(torch.tensor(x))
    np.testing.assert_allclose(exported.detach(), module(torch.tensor(x)).detach(), rtol=1e-12)


def test_training_moves_the_state_as_batch_norm_of_torch_does():
    ours = tn.to_torch(tn.BatchNorm(4, momentum=0.25), tn.BatchNorm(4).init(np.random.default_rng(0), np.float64))
    theirs = torch.nn.BatchNorm1d(4, momentum=0.25, dtype=torch.float64)
    for k in range(3):
        x = torch.tensor(np.random.default_rng(k).normal(3, 2, size=(50, 4)))
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_mean, theirs.running_mean)
    torch.testing.assert_close(ours.state_var, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x), theirs(x))


def test_what_draws_is_not_exported_in_training():
    with pytest.raises(ValueError, match=r"draws in training, which cannot be exported; call \.eval\(\) first"):
        torch.export.export(tn.to_torch(tn.Dropout(0.5)), (inputs(),))
