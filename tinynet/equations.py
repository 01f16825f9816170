"""The document's equations (1)–(26): formula, misprint, where each is implemented and which test checks it.

The document derives a sigmoid network trained on E = ½ Σ (ŷ − y)²: §2 index by index for one hidden layer, §3 gradient
descent, §4 mini-batch SGD, §5 with vectors and matrices for any number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """One numbered equation.

    Attributes:
        number: as printed.
        formula: as it should read.
        code: where it is implemented, each `module:name`; the source there carries the number.
        checks: the tests that compare it with `jax.grad`, each a pytest node id.
        erratum: what the document misprints; empty where it is right.
        printed: the formula as the document has it, where it has a misprint.
        erratum_zh: the erratum in the document's language.
    """

    number: int
    formula: str
    code: tuple[str, ...]
    checks: tuple[str, ...]
    erratum: str = ""
    printed: str = ""
    erratum_zh: str = ""


def _equation(number: int, formula: str, code: str, tests: str, *erratum: str) -> Equation:
    """Return an equation, from what is in tinynet and in tests/test_equations.py, separated by spaces."""
    places = tuple(f"tinynet.{place}" for place in code.split())
    return Equation(number, formula, places, tuple(f"tests/test_equations.py::{t}" for t in tests.split()), *erratum)


EQUATIONS: tuple[Equation, ...] = (
    _equation(1, "f(x) = 1 / (1 + e^−x)",
        "layers.sigmoid:Sigmoid.forward scalar:f", "test_01_f_is_the_sigmoid"),
    _equation(2, "f′(x) = f(x) · (1 − f(x))",
        "layers.sigmoid:Sigmoid.forward scalar:f_prime", "test_02_f_prime_is_the_derivative_of_f"),
    _equation(3, "ℓ(ŷ, y) = Σ_k (ŷ_k − y_k)²",
        "scalar:ell", "test_03_the_printed_loss_gives_twice_the_gradient_of_07",
        "differs from (4) by the factor ½; every gradient that follows is that of (4)",
        "ℓ(ŷ, y) = Σ_k (ŷ_k − y_k)²",
        "与 (4) 相差因子 ½；其后的梯度都是 (4) 的梯度"),
    _equation(4, "E_i = ½ Σ_k (ŷ_ik − y_ik)²",
        "losses.squared_error:SquaredError.forward scalar:error", "test_04_E_is_half_the_squared_error"),
    _equation(5, "∇W_ks = ∂E_i/∂W_ks",
        "scalar:grad_W", "test_05_grad_W_is_the_derivative_by_W"),
    _equation(6, "∇W_ks = ∂E_i/∂ŷ_k · ∂ŷ_k/∂β_k · ∂β_k/∂W_ks",
        "scalar:grad_W", "test_06_grad_W_is_the_product_of_three_derivatives"),
    _equation(7, "∇W_ks = (ŷ_k − y_k) · ŷ_k (1 − ŷ_k) · h_s",
        "scalar:grad_W", "test_07_grad_W_in_closed_form"),
    _equation(8, "∇V_sd = ∂E_i/∂V_sd",
        "scalar:grad_V", "test_08_grad_V_is_the_derivative_by_V"),
    _equation(9, "∇V_sd = ∂E_i/∂h_s · ∂h_s/∂α_s · ∂α_s/∂V_sd",
        "scalar:grad_V", "test_09_grad_V_is_the_product_of_three_derivatives"),
    _equation(10, "∇V_sd = Σ_k ∂E_i/∂β_k · ∂β_k/∂h_s · h_s (1 − h_s) · x_d",
        "scalar:grad_V", "test_10_the_error_of_h_sums_over_the_outputs"),
    _equation(11, "∇V_sd = Σ_k ŷ_k (1 − ŷ_k) (ŷ_k − y_k) W_ks · h_s (1 − h_s) · x_d",
        "scalar:grad_V", "test_11_grad_V_in_closed_form test_11_and_16_with_W_hk_as_printed_are_wrong",
        "prints W_hk for W_ks: h is no index, and k, the output, is W's first index in (5)–(7)",
        "∇V_sd = Σ_k ŷ_k (1 − ŷ_k) (ŷ_k − y_k) W_hk · h_s (1 − h_s) · x_d",
        "W_hk 应为 W_ks：h 不是下标；在 (5)–(7) 中，输出 k 是 W 的第一个下标"),
    _equation(12, "∇b_k = ∂E_i/∂b_k = ∂E_i/∂ŷ_k · ∂ŷ_k/∂b_k",
        "scalar:grad_b", "test_12_grad_b_is_the_product_of_two_derivatives"),
    _equation(13, "∇b_k = (ŷ_k − y_k) · ŷ_k (1 − ŷ_k)",
        "scalar:grad_b", "test_13_grad_b_in_closed_form"),
    _equation(14, "∇c_s = ∂E_i/∂c_s = ∂E_i/∂h_s · ∂h_s/∂c_s",
        "scalar:grad_c", "test_14_grad_c_is_the_product_of_two_derivatives"),
    _equation(15, "∇c_s = Σ_k ∂E_i/∂β_k · ∂β_k/∂h_s · h_s (1 − h_s)",
        "scalar:grad_c", "test_15_the_error_of_h_sums_over_the_outputs"),
    _equation(16, "∇c_s = Σ_k ŷ_k (1 − ŷ_k) (ŷ_k − y_k) W_ks · h_s (1 − h_s)",
        "scalar:grad_c", "test_16_grad_c_in_closed_form test_11_and_16_with_W_hk_as_printed_are_wrong",
        "prints W_hk for W_ks, as (11) does",
        "∇c_s = Σ_k ŷ_k (1 − ŷ_k) (ŷ_k − y_k) W_hk · h_s (1 − h_s)",
        "与 (11) 一样，W_hk 应为 W_ks"),
    _equation(17, "∇W ≈ 1/m · Σ_i ∇W_{x_i}",
        "losses.squared_error:SquaredError.backward scalar:mean_gradients",
        "test_17_the_mini_batch_gradient_is_the_mean_over_its_samples"),
    _equation(18, "z^l = W^l a^(l−1) + b^l",
        "layers.linear:Linear.forward", "test_18_z_is_affine_in_a"),
    _equation(19, "a^l = f(z^l)",
        "layers.sigmoid:Sigmoid.forward", "test_19_a_is_f_of_z"),
    _equation(20, "δ^l = ∂J/∂z^l = ∂J/∂a^l ⊗ f′(z^l)",
        "layers.sigmoid:Sigmoid.backward",
        "test_20_delta_is_the_error_of_a_times_f_prime test_20_stacked_as_printed_does_not_fit",
        "stacks the factors ∂J/∂a_i and ∂a_i/∂z_i as 2n rows; each row of δ is their product",
        "δ^l = (∂J/∂a_1^l, ∂a_1^l/∂z_1^l, …, ∂J/∂a_n^l, ∂a_n^l/∂z_n^l)ᵀ",
        "把因子 ∂J/∂a_i 与 ∂a_i/∂z_i 排成了 2n 行；δ 的每一行应是二者之积"),
    _equation(21, "δ^L = (ŷ − y) ⊗ f′(z^L)",
        "losses.squared_error:SquaredError.backward", "test_21_delta_of_the_last_layer"),
    _equation(22, "δ^l = (W^(l+1))ᵀ δ^(l+1) ⊗ f′(z^l)",
        "layers.linear:Linear.backward layers.sequential:Sequential._backward",
        "test_22_delta_of_a_hidden_layer test_22_as_printed_is_wrong",
        "prints f′(z^L) for f′(z^l) in the middle, and δW where column vectors need Wᵀδ",
        "δ^l = ∂J/∂z^(l+1) · ∂z^(l+1)/∂a^l ⊗ f′(z^L) = δ^(l+1) W^(l+1) ⊗ f′(z^l)",
        "中间的 f′(z^L) 应为 f′(z^l) ；对列向量，δW 应为 Wᵀδ"),
    _equation(23, "∂J/∂w_ij^l = δ_i^l · a_j^(l−1)",
        "layers.linear:Linear.param_grads", "test_23_an_entry_of_dW"),
    _equation(24, "∂J/∂W^l = δ^l (a^(l−1))ᵀ",
        "layers.linear:Linear.param_grads",
        "test_24_dW_is_an_outer_product test_24_with_a_of_layer_l_as_printed_is_wrong",
        "writes the row vector as a_1^l … a_m^l; it is a^(l−1), as (23) and its own last form have it",
        "∂J/∂W^l = δ^l (a_1^l, a_2^l, …, a_m^l)",
        "行向量写成了 a_1^l … a_m^l ；应为 a^(l−1) ，如 (23) 和它自己的最后一步"),
    _equation(25, "∂J/∂b_i^l = δ_i^l",
        "layers.linear:Linear.param_grads", "test_25_an_entry_of_db"),
    _equation(26, "∂J/∂b^l = δ^l",
        "layers.linear:Linear.param_grads", "test_26_db_is_delta"),
)  # fmt: skip
