"""Networks as ONNX files: onnxruntime computes what `tinynet.predict` does."""

import numpy as np
import pytest

import tinynet as tn

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MLP = tn.Sequential(tn.Linear(3, 8), tn.GELU(), tn.LayerNorm(8), tn.Dropout(0.5), tn.Linear(8, 2), tn.Softmax())
IMAGES = tn.Sequential(tn.Conv2d(1, 4, 3), tn.ReLU(), tn.MaxPool2d(2), tn.Flatten(), tn.Linear(36, 5))
WORDS = tn.Sequential(tn.MultiHeadAttention(4, 2, causal=True), tn.RMSNorm(4), tn.GRU(4, 3))
SHAPES = {"mlp": (MLP, (7, 3)), "images": (IMAGES, (7, 1, 8, 8)), "words": (WORDS, (7, 5, 4))}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("net", "shape"), SHAPES.values(), ids=SHAPES)
def test_onnxruntime_predicts_the_same(net, shape, tmp_path):
    params = net.init(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    path = str(tmp_path / "net.onnx")
    torch.onnx.export(tn.to_torch(net, params).eval(), (torch.tensor(x),), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    x = x[::-1].copy()
    (y_hat,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(y_hat, tn.predict(net, params, x), rtol=1e-4, atol=1e-6)
