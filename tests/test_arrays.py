"""Arrays of NumPy and JAX: told from other things, named, and never shared by mistake."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinynet.arrays import describe, is_array, is_floating, namespace, owned_copy, rows, scan


def test_the_namespace_is_that_of_the_library():
    assert namespace(np.zeros(2)) is np
    assert namespace(np.float32(1)) is np
    assert namespace(jnp.zeros(2)) is jnp


def test_a_tracer_has_the_namespace_of_jax():
    seen = []
    jax.jit(lambda x: seen.append(namespace(x)) or x)(jnp.zeros(2))
    assert seen == [jnp]


@pytest.mark.parametrize(("x", "name"), [([1.0], "list"), (1.0, "float"), (None, "None")])
def test_what_is_no_array_has_no_namespace(x, name):
    assert not is_array(x)
    with pytest.raises(TypeError, match=f"{name} is not an array; convert it with numpy.asarray"):
        namespace(x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", jnp.bfloat16])
def test_floating_point_is_known(dtype):
    assert is_floating(np.zeros(2, dtype))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex128", "object", "U3"])
def test_other_dtypes_are_not_floating(dtype):
    assert not is_floating(np.zeros(2, dtype))


@pytest.mark.parametrize(("shape", "m"), [((3,), 1), ((5, 3), 5), ((2, 4, 3), 8), ((0, 3), 0), ((2, 0, 3), 0)])
def test_rows_are_the_samples(shape, m):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert rows(x).shape == (m, 3)
    np.testing.assert_array_equal(rows(x).ravel(), x.ravel())


def test_rows_of_a_contiguous_array_are_a_view():
    x = np.zeros((2, 4, 3))
    assert np.shares_memory(rows(x), x)


def test_an_owned_copy_shares_nothing_and_can_be_written():
    x = np.arange(3.0)
    x.flags.writeable = False
    copy = owned_copy(x)
    copy += 1
    np.testing.assert_array_equal(x, [0, 1, 2])
    assert isinstance(owned_copy(jnp.zeros(2)), jax.Array)


def test_an_array_is_named_by_dtype_and_shape():
    assert describe(np.zeros((3, 2), np.float32)) == "float32 array of shape (3, 2)"
    assert describe(jnp.zeros(())) == "float32 array of shape ()"
    assert [describe(x) for x in ([], None, "x", 1)] == ["list", "None", "str", "int"]


def running_sum(carry, x):
    total = carry["total"] + x["a"]
    return {"total": total, "count": carry["count"] + 1}, (total * x["b"], {"a": x["a"]})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [0, 1, 5])
def test_a_scan_over_numpy_equals_lax_scan(reverse, T):
    rng = np.random.default_rng(0)
    xs = {"a": rng.normal(size=(T, 2)), "b": rng.normal(size=(T, 3, 2))}
    start = {"total": np.ones(2), "count": np.zeros((), np.int64)}
    got = scan(running_sum, start, xs, reverse=reverse)
    with jax.enable_x64(True):
        expected = jax.lax.scan(running_sum, start, xs, reverse=reverse)
        by_jax = scan(running_sum, start, jax.tree.map(jnp.asarray, xs), reverse=reverse)
    assert jax.tree.structure(got) == jax.tree.structure(expected) == jax.tree.structure(by_jax)
    for mine, theirs, traced in zip(*map(jax.tree.leaves, (got, expected, by_jax)), strict=True):
        assert mine.dtype == theirs.dtype
        assert isinstance(traced, jax.Array)
        np.testing.assert_allclose(mine, theirs, rtol=1e-15)
        np.testing.assert_array_equal(theirs, traced)


def test_a_scan_is_one_loop_in_the_compiled_program():
    program = jax.make_jaxpr(lambda xs: scan(lambda c, x: (c + x, c), jnp.zeros(()), xs))(jnp.zeros(40))
    assert "scan" in str(program)
    assert str(program).count("add") == 1


@pytest.mark.parametrize(
    "change",
    [lambda c: c.astype(np.float32), lambda c: c[None], lambda c: (c,), lambda c: {"c": c}],
    ids=["dtype", "shape", "tuple", "dict"],
)
def test_a_scan_refuses_a_carry_that_changes(change):
    with pytest.raises(TypeError, match=r"scan: the carry was float64 array of shape \(2,\) and became"):
        scan(lambda c, x: (change(c), x), np.zeros(2), np.zeros((3, 2)))
    with pytest.raises(TypeError), jax.enable_x64(True):
        scan(lambda c, x: (change(c), x), jnp.zeros(2), jnp.zeros((3, 2)))


def test_a_scan_needs_one_length():
    with pytest.raises(ValueError, match=r"the arrays of xs have lengths \[2, 3\]; expected one common first axis"):
        scan(lambda c, x: (c, x), np.zeros(2), (np.zeros(2), np.zeros(3)))
    with pytest.raises(ValueError, match=r"the arrays of xs have lengths \[\]"):
        scan(lambda c, x: (c, x), np.zeros(2), ())


def test_a_scan_over_numpy_arrays_does_not_import_jax():
    program = (
        "import sys, numpy as np, tinynet as tn; tn.scan(lambda c, x: (c, x), np.zeros(1), np.zeros((2, 1))); "
        "tn.namespace(np.zeros(1)); tn.map_leaves(abs, {}); sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
