"""Tables: digits as scikit-learn ships them, CSV and NPZ as written, a split that leaks nothing, and bad files."""

import io
import zipfile

import numpy as np
import pytest
import sklearn.datasets

from tinynet.cli.tables import Table, choose_task, load_digits, read_csv, read_npz, split


def csv(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def npz(folder, **arrays):
    path = folder / "table.npz"
    np.savez(path, **arrays)
    return path


def table(m=20, n=3, target=None, seed=0):
    rng = np.random.default_rng(seed)
    return Table("table", rng.normal(5, 3, size=(m, n)), np.arange(m) % 2 if target is None else target)


# digits


def test_digits_are_those_of_scikit_learn_from_0_to_1():
    digits, bunch = load_digits(), sklearn.datasets.load_digits()
    np.testing.assert_array_equal(digits.x, bunch.images.reshape(1797, 64) / 16)
    np.testing.assert_array_equal(digits.target, bunch.target)
    assert (digits.x.min(), digits.x.max()) == (0, 1)


# CSV


@pytest.mark.parametrize(
    ("target", "column", "others"),
    [(None, 2, [0, 1]), ("c", 2, [0, 1]), ("a", 0, [1, 2]), ("1", 1, [0, 2]), ("-3", 0, [1, 2])],
)
def test_a_csv_with_a_header(tmp_path, target, column, others):
    numbers = np.array([[1.5, 2, 3], [4, 5.5, 6], [7, 8, 9.5]])
    lines = ["a,b,c", *(",".join(map(str, row)) for row in numbers)]
    read = read_csv(csv(tmp_path, "\n".join(lines)), target)
    np.testing.assert_array_equal(read.x, numbers[:, others])
    np.testing.assert_array_equal(read.target, numbers[:, column])
    assert read.name == "table.csv"


def test_a_csv_without_a_header_loses_no_row(tmp_path):
    read = read_csv(csv(tmp_path, "1,2,0\n3,4,1\n"), None)
    np.testing.assert_array_equal(read.x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read.target, [0, 1])
    assert read.target.dtype == np.int64


def test_a_csv_as_spreadsheets_write_it(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeffa,"b, quoted",c\r\n1,2,cat\r\n\r\n3,4e-1,"dog, big"\r\n'.encode())
    read = read_csv(path, None)
    np.testing.assert_array_equal(read.x, [[1, 2], [3, 0.4]])
    assert read.target.tolist() == ["cat", "dog, big"]
    np.testing.assert_array_equal(read_csv(csv(tmp_path, "a,n\n1,0.5\n2,1.5\n"), "n").target, [0.5, 1.5])


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, "no rows; expected a table of numbers"),
        ("\n\n", None, "no rows; expected a table of numbers"),
        ("a,b\n", None, "a header and no rows; expected at least two samples"),
        ("a,b\n1,2\n3\n", None, "row 3 has 1 fields; expected 2, as row 1 has"),
        ("1\n2\n", None, "one column; expected features and a target"),
        ("1;2\n3;4\n", None, "one column: fields are separated by semicolons; expected commas"),
        ("a,b,c\n1,2,3\n4,x,6\n", None, "row 3, b: 'x' is not a finite number; encode or remove it"),
        ("a;b\n1,5;2\n", None, "row 2 has 2 fields; expected 1, as row 1 has: fields are separated by semicolons"),
        ("a\tb\n1\t2\n", None, "one column: fields are separated by tabs"),
        ("1,2,3\n1,inf,3\n", "0", "row 2, column 1: 'inf' is not a finite number"),
        ("a,b\n1,2\n1,inf\n", None, "b has a value that is infinite"),
        ("a,b\n1,\n1,nan\n", None, "b: no row has a target; choose another --target"),
        ("a,b\n" + "".join(f"1,{i}\n" for i in range(30)) + "1,many\n", None, "b has numbers and 'many'; mend"),
        (f"a,b\n{'1' * 200_000},2\n", None, "not a CSV file: field larger than field limit"),
        ("a,b\n1,2\n", "c", "no column 'c' for --target; the columns are: a, b"),
        ("1,2\n3,4\n", "2", "no column '2' for --target; the columns are: no header, indices 0 to 1"),
        ("1,2\n3,4\n", "-3", "no column '-3' for --target"),
    ],
)
def test_a_bad_csv_is_refused_where_it_is_bad(tmp_path, text, target, message):
    with pytest.raises(ValueError, match=rf"table\.csv: {message}"):
        read_csv(csv(tmp_path, text), target)


def test_missing_cells_are_the_mean_and_rows_without_a_target_are_left_out(tmp_path):
    read = read_csv(csv(tmp_path, "a,b,price\n1,,0.5\n3,NA,1.5\n5,6,\n7,8,n/a\n9,4,2.5\n"), None)
    np.testing.assert_array_equal(read.x, [[1, np.nan], [3, np.nan], [9, 4]])
    np.testing.assert_array_equal(read.target, [0.5, 1.5, 2.5])
    assert read.note == "2 rows without price left out; 2 missing cells taken as the mean of the column"
    holes = table(40)
    holes.x[3:9, 0] = np.nan
    data = split(holes, task=None, test_fraction=0.25, seed=0)
    filled = np.concatenate([data.x_train, data.x_test])[:, 0]
    assert (filled == 0).sum() == 6
    np.testing.assert_allclose(data.x_mean[0] + data.x_scale[0] * data.x_train[:, 0].mean(dtype=float), data.x_mean[0])


@pytest.mark.parametrize("target", ["3,1.5", "3,1"], ids=["fractions", "whole"])
def test_one_empty_target_does_not_make_classes_of_numbers(tmp_path, target):
    rows = "".join(f"{i},{i * 0.5 if '.' in target else i}\n" for i in range(50))
    read = read_csv(csv(tmp_path, f"a,y\n{target}\n4,\n{rows}"), None)
    assert read.target.dtype.kind in "fi"
    assert choose_task(read.target) == "regress"


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [("gbk", "it may be GBK: give --encoding gbk"), ("utf-16", "it looks like UTF-16: give --encoding utf-16")],
)
def test_an_encoding_is_named_with_the_remedy(tmp_path, encoding, hint):
    path = tmp_path / "table.csv"
    path.write_bytes("面积,价格\n1,0.5\n2,1.5\n".encode(encoding))
    with pytest.raises(ValueError, match=rf"table\.csv: not utf-8 text; {hint}, or save it as UTF-8"):
        read_csv(path, None)
    read = read_csv(path, "价格", encoding)
    assert (read.columns, read.target_name) == (("面积",), "价格")
    with pytest.raises(ValueError, match="no encoding has the name 'klingon'"):
        read_csv(path, None, "klingon")


# NPZ


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_an_npz_of_numbers(tmp_path, dtype):
    x, y = np.arange(6).reshape(3, 2).astype(dtype), np.array([0, 1, 0])
    read = read_npz(npz(tmp_path, x=x, y=y))
    np.testing.assert_array_equal(read.x, x)
    np.testing.assert_array_equal(read.target, y)
    assert read.x.dtype == np.float64


def test_an_npz_of_images_is_flattened_and_of_names_is_kept(tmp_path):
    read = read_npz(npz(tmp_path, x=np.zeros((3, 8, 8)), y=np.array(["a", "b", "a"])))
    assert read.x.shape == (3, 64)
    assert read.target.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2))}, r"""holds \['x'\]; expected the arrays "x" and "y\""""),
        (
            {"x": np.zeros(3), "y": np.zeros(3)},
            r"x is float64 of shape \(3,\); expected real numbers of shape \(m, n\)",
        ),
        ({"x": np.zeros((3, 2), complex), "y": np.zeros(3)}, "x is complex128 of shape"),
        ({"x": np.zeros((3, 2), "U1"), "y": np.zeros(3)}, "x is <U1 of shape"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, r"y has shape \(2,\); expected \(3,\), one target per row of x"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((3, 1))}, r"y has shape \(3, 1\); expected \(3,\)"),
        ({"x": np.full((3, 2), np.nan), "y": np.zeros(3)}, "x has a value that is NaN or infinite"),
        ({"x": np.zeros((3, 2)), "y": np.full(3, np.inf)}, "y has a value that is NaN or infinite"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=rf"table\.npz: {message}"):
        read_npz(npz(tmp_path, **arrays))


@pytest.mark.parametrize("name", ["x", "y"])
def test_nothing_is_unpickled(tmp_path, name):
    arrays = {"x": np.zeros((2, 1)), "y": np.zeros(2), name: np.array([[1], ["a"]], object)}
    with pytest.raises(ValueError, match="allow_pickle"):
        read_npz(npz(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n"], ids=["empty", "text"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "table.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"table\.npz|pickled"):
        read_npz(path)


def test_a_single_array_is_no_npz(tmp_path):
    with open(tmp_path / "table.npz", "wb") as file:
        np.save(file, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"table\.npz: not an NPZ file"):
        read_npz(tmp_path / "table.npz")


def test_an_npz_that_claims_8_terabytes_is_refused(tmp_path):
    path = tmp_path / "table.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 1)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, header.getvalue() + bytes(100))
    with pytest.raises(
        ValueError, match=r"table\.npz: not an NPZ file that can be read \(Unable to allocate 7\.28 TiB"
    ):
        read_npz(path)


# the split


def test_every_row_is_in_one_part_and_keeps_its_target():
    numbered = Table("table", np.arange(40.0).reshape(20, 2), np.arange(20) % 2)
    data = split(numbered, task=None, test_fraction=0.25, seed=0, standardise=False)
    assert (len(data.x_train), len(data.x_test)) == (15, 5)
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    order = x[:, 0].argsort()
    np.testing.assert_array_equal(x[order], numbered.x)
    np.testing.assert_array_equal(np.array(data.classes)[y.argmax(axis=1)][order], numbered.target)
    np.testing.assert_array_equal(y.sum(axis=1), 1)
    assert {a.dtype for a in (data.x_train, data.y_train, data.x_test, data.y_test)} == {np.dtype(np.float32)}


def test_scaling_knows_the_training_rows_only():
    rows = table()
    raw = split(rows, task=None, test_fraction=0.25, seed=0, standardise=False)
    data = split(rows, task=None, test_fraction=0.25, seed=0)
    mean, std = raw.x_train.mean(axis=0, dtype=np.float64), raw.x_train.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(data.x_train, (raw.x_train - mean) / std, atol=1e-5)
    np.testing.assert_allclose(data.x_test, (raw.x_test - mean) / std, atol=1e-5)


def test_a_column_that_never_changes_is_no_division_by_0():
    rows = table()
    rows.x[:, 1] = 7
    data = split(rows, task=None, test_fraction=0.25, seed=0)
    assert np.isfinite(data.x_train).all()
    np.testing.assert_array_equal(data.x_train[:, 1], 0)


def test_classes_are_held_out_in_proportion():
    data = split(table(100, target=np.repeat([3, 5], [80, 20])), task=None, test_fraction=0.2, seed=0)
    np.testing.assert_array_equal(data.y_test.sum(axis=0), [16, 4])
    np.testing.assert_array_equal(data.classes, [3, 5])


def test_the_seed_decides_the_split():
    parts = [split(table(), task=None, test_fraction=0.25, seed=seed).x_test for seed in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (np.linspace(0, 1, 20), "regress"),
        (np.arange(20.0) % 3, "classify"),
        (np.array(["a", "b"] * 10), "classify"),
        (np.arange(400) % 286, "regress"),
        (np.arange(200) % 20, "classify"),
    ],
)
def test_fractions_and_many_whole_numbers_are_regressed_on(target, task):
    assert split(table(len(target), target=target), task=None, test_fraction=0.25, seed=0).task == task


def test_a_regression_target_is_standardised_and_its_scale_kept():
    target = np.arange(20) * 10
    data = split(table(target=target), task="regress", test_fraction=0.25, seed=0)
    assert data.y_train.shape == (15, 1)
    assert data.y_train.mean() == pytest.approx(0, abs=1e-6)
    assert data.y_train.std() == pytest.approx(1, abs=1e-6)
    gap = np.diff(np.sort(np.concatenate([data.y_train, data.y_test])[:, 0]))
    np.testing.assert_allclose(gap * data.y_scale, 10, rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (table(1), {}, "1 rows, test fraction 0.25; expected 2 rows and 0 < f < 1"),
        (table(), {"test_fraction": 0.0}, "20 rows, test fraction 0.0; expected"),
        (table(), {"test_fraction": 1.0}, "20 rows, test fraction 1.0; expected"),
        (table(target=np.array(["a"] * 20)), {}, r"every target is .*'a'.*; expected at least two classes"),
        (table(target=np.array(["a", "b"] * 10)), {"task": "regress"}, r"the target is text .*'a'.*; expected numbers"),
    ],
)
def test_a_table_that_cannot_be_split_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=f"table: {message}"):
        split(rows, **{"task": None, "test_fraction": 0.25, "seed": 0} | options)
