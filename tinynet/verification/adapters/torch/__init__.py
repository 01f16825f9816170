"""PyTorch targets: `torch.autograd.Function`s, modules, custom operators, and functions that take tensors."""

from tinynet.verification.adapters.torch.by_hand import adapt_by_hand as adapt_by_hand
from tinynet.verification.adapters.torch.targets import adapt_torch as adapt_torch
