"""The layers that torch has too: the same values and gradients from the same parameters."""

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within, random_params

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its layers are NOT compared with ours here")

RNG = np.random.default_rng(0)


def copied(module, arrays):
    """Return the torch `module` in float64 with `arrays` for its parameters, by torch's names."""
    module = module.double()
    with torch.no_grad():
        for name, value in arrays.items():
            getattr(module, name).copy_(torch.from_numpy(value))
    return module


def gradients(y, dy, *wanted):
    y.backward(torch.from_numpy(dy))
    return [w.grad.numpy() for w in wanted]


@pytest.mark.parametrize(
    ("layer", "theirs"), [(tn.RNN, torch.nn.RNN), (tn.GRU, torch.nn.GRU), (tn.LSTM, torch.nn.LSTM)]
)
@pytest.mark.parametrize("lengths", [None, [7, 3, 1, 5]])
def test_recurrent_layers(layer, theirs, lengths):
    ours, x = layer(3, 4), RNG.normal(size=(4, 7, 3))
    params = random_params(ours, RNG)
    names = {"W_ih": "weight_ih_l0", "W_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    module = copied(theirs(3, 4, batch_first=True), {names[name]: p for name, p in params.items()})
    inputs = torch.tensor(x, requires_grad=True)
    if lengths is None:
        y, cache = ours.forward(params, x)
        expected, _ = module(inputs)
    else:
        y, cache = ours.forward(params, (x, np.array(lengths)))
        packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        expected, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)
    assert_within(y, expected.detach().numpy())
    dy = RNG.normal(size=y.shape)
    dx, dparams = ours.backward(params, cache, dy)
    dx_torch, *dparams_torch = gradients(expected, dy, inputs, *(getattr(module, names[name]) for name in params))
    assert_within(dx if lengths is None else dx[0], dx_torch)
    assert_within(list(dparams.values()), dparams_torch)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(causal, masked):
    ours, x = tn.MultiHeadAttention(6, 3, causal), RNG.normal(size=(2, 5, 6))
    params = random_params(ours, RNG)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], bool)
    module = torch.nn.MultiheadAttention(6, 3, batch_first=True)
    copied(module, {"in_proj_weight": params["W_in"], "in_proj_bias": params["b_in"]})
    copied(module.out_proj, {"weight": params["W_out"], "bias": params["b_out"]})
    inputs = torch.tensor(x, requires_grad=True)
    expected, _ = module(
        inputs,
        inputs,
        inputs,
        key_padding_mask=torch.from_numpy(~mask) if masked else None,
        attn_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None,
    )
    y, cache = ours.forward(params, (x, mask) if masked else x)
    assert_within(y, expected.detach().numpy())
    dy = RNG.normal(size=y.shape)
    dx, dparams = ours.backward(params, cache, dy)
    wanted = module.in_proj_weight, module.in_proj_bias, module.out_proj.weight, module.out_proj.bias
    dx_torch, *dparams_torch = gradients(expected, dy, inputs, *wanted)
    assert_within(dx[0] if masked else dx, dx_torch)
    assert_within([dparams[name] for name in ("W_in", "b_in", "W_out", "b_out")], dparams_torch)


@pytest.mark.parametrize(
    ("shape", "theirs"), [((8, 3), "BatchNorm1d"), ((5, 3, 4), "BatchNorm1d"), ((2, 3, 4, 5), "BatchNorm2d")]
)
def test_batch_norm_and_its_running_statistics(shape, theirs):
    ours = tn.BatchNorm(3, momentum=0.3, eps=1e-3)
    params, state = random_params(ours, RNG), ours.init_state(np.float64)
    module = getattr(torch.nn, theirs)(3, momentum=0.3, eps=1e-3)
    copied(module, {"weight": params["gamma"], "bias": params["beta"]})
    for _ in range(3):
        x = RNG.normal(1, 2, size=shape)
        inputs = torch.tensor(x, requires_grad=True)
        expected, (y, cache) = module(inputs), ours.sample(RNG).forward(params, x)
        assert_within(y, expected.detach().numpy())
        state = ours.sample(RNG).update_state(state, cache)
        assert_within([state["mean"], state["var"]], [module.running_mean.numpy(), module.running_var.numpy()])
    dy = RNG.normal(size=shape)
    dx, dparams = ours.sample(RNG).backward(params, cache, dy)
    assert_within([dx, *dparams.values()], gradients(expected, dy, inputs, module.weight, module.bias))
    module.eval()
    assert_within(ours.forward(params, x, state=state)[0], module(inputs).detach().numpy())


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1), (4, 3, 2)])
def test_conv1d(kernel, stride, padding):
    ours, x = tn.Conv1d(2, 3, kernel, stride, padding), RNG.normal(size=(4, 2, 9))
    params = random_params(ours, RNG)
    module = copied(torch.nn.Conv1d(2, 3, kernel, stride, padding), {"weight": params["W"], "bias": params["b"]})
    inputs = torch.tensor(x, requires_grad=True)
    expected, (y, cache) = module(inputs), ours.forward(params, x)
    assert_within(y, expected.detach().numpy())
    dy = RNG.normal(size=y.shape)
    dx, dparams = ours.backward(params, cache, dy)
    assert_within([dx, *dparams.values()], gradients(expected, dy, inputs, module.weight, module.bias))


def test_rms_norm():
    ours, x, dy = tn.RMSNorm(4, eps=1e-3), RNG.normal(size=(5, 3, 4)), RNG.normal(size=(5, 3, 4))
    params = random_params(ours, RNG)
    module = copied(torch.nn.RMSNorm(4, eps=1e-3), {"weight": params["gamma"]})
    inputs = torch.tensor(x, requires_grad=True)
    expected, (y, cache) = module(inputs), ours.forward(params, x)
    assert_within(y, expected.detach().numpy())
    dx, dparams = ours.backward(params, cache, dy)
    assert_within([dx, dparams["gamma"]], gradients(expected, dy, inputs, module.weight))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [None, -100, 2])
def test_cross_entropy_of_labels(reduction, smoothing, ignored):
    z, y = RNG.normal(size=(4, 6, 5)), RNG.integers(5, size=(4, 6))
    if ignored is not None:
        y[1:, 2:4] = ignored
    ours = tn.SoftmaxCrossEntropy(reduction, ignore_index=ignored, label_smoothing=smoothing)
    theirs = torch.nn.CrossEntropyLoss(
        reduction=reduction, ignore_index=-100 if ignored is None else ignored, label_smoothing=smoothing
    )
    logits = torch.tensor(z, requires_grad=True)
    expected, (E, cache) = theirs(logits.reshape(-1, 5), torch.from_numpy(y.ravel())), ours.forward(z, y)
    assert_within(E, expected.detach().numpy())
    expected.backward()
    assert_within(ours.backward(cache), logits.grad.numpy())
