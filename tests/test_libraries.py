"""Arrays of other libraries: the answers NumPy gets, as arrays of the library that asked."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import softly
from family import (
    DERIVATIVES,
    DOUBLE,
    ELEMENTWISE,
    FLOATS,
    FUNCTIONS,
    OF_SCORES,
    OVER_AN_AXIS,
    SINGLE,
    arguments,
    last_axis,
    names,
    same_bits,
    temperatures,
)
from softly.kernels import chosen

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# The libraries that are met through their array API ---------------------------------------------


@dataclass
class Library:
    """How numbers get into a library's arrays and out of them."""

    name: str
    array: type
    put: Any
    dtypes: list[np.dtype]
    take: Any = np.asarray
    slow: bool = False  # it compiles every operation for every shape

    def some(self, cases):
        return cases[:1] if self.slow else cases


def strict():
    library = pytest.importorskip("array_api_strict")
    return Library("array_api_strict", type(library.zeros(1)), library.asarray, [SINGLE, DOUBLE])


def jax():
    jax = pytest.importorskip("jax")
    return Library("jax", jax.Array, jax.numpy.asarray, [SINGLE], slow=True)


def compute(array):
    """Dask's own NumPy warns, long after the call that could have silenced it."""
    with np.errstate(all="ignore"):
        return array.compute(scheduler="synchronous")


def dask():
    library = pytest.importorskip("dask.array")
    return Library(
        "dask",
        library.Array,
        lambda array: library.from_array(array, chunks=4),  # cuts the classes as well
        [SINGLE],
        compute,
    )


@pytest.fixture(params=[strict, jax, dask], ids=lambda library: library.__name__)
def library(request):
    return request.param()


def check(library, function, given, **options):
    """The library's answer is NumPy's, of the library's and the input's type."""
    wanted = function(*given, **options)
    put = {name: library.put(v) if np.ndim(v) else v for name, v in options.items()}
    put |= {name: options[name] for name in ("axis",) if name in options}
    answer = function(*map(library.put, given), **put)
    pairs = (
        [(answer, wanted)] if not isinstance(wanted, tuple) else zip(answer, wanted, strict=True)
    )
    for actual, value in pairs:
        assert isinstance(actual, library.array)
        assert actual.shape == np.shape(value)
        taken = library.take(actual)
        assert taken.dtype == given[0].dtype
        # Some units in the last place, and of the largest number on the way to the answer.
        eps = float(ml_dtypes.finfo(given[0].dtype).eps)
        value, taken = (np.asarray(array, float) for array in (value, taken))
        largest = np.nanmax(abs(value), where=np.isfinite(value), initial=1)
        np.testing.assert_allclose(taken, value, rtol=30 * eps, atol=4 * eps * largest)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_functions_over_every_axis(library, function):
    for dtype in library.dtypes:
        for axis in library.some([(0, 2), 1, None, 0, -1, (2, 1), (0, 1, 2)]):
            check(library, function, arguments(function, (4, 5, 7), dtype), axis=axis)
        check(library, function, arguments(function, (), dtype))


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_elementwise_functions(library, function):
    for dtype in library.dtypes:
        for shape in library.some([(4, 5), (), (0, 3)]):
            check(library, function, arguments(function, shape, dtype))
        ends = np.array([0, 1, np.inf, -np.inf, np.nan, 0.5, 2, -1, 80, -80], dtype)
        check(library, function, [ends])


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_functions_with_temperatures(library, function):
    for dtype in library.dtypes:
        given = arguments(function, (6, 7), dtype)
        for temperature in library.some([0.5, 2, 30.0]):
            check(library, function, given, axis=1, temperature=temperature)
        each = np.linspace(0.5, 2, 6).astype(dtype)
        check(library, function, given, axis=1, temperature=each)
        check(library, function, given, axis=1, temperature=each[:, None])
        check(library, function, given, axis=0, temperature=np.ones((1, 7), dtype))
        if function is not softly.softmax_inverse:  # 0 and infinity have no inverse
            for temperature in library.some([0, 0.0, np.inf]):
                check(library, function, given, axis=1, temperature=temperature)
            each[::2], each[1] = 0, np.inf
            check(library, function, given, axis=1, temperature=each)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_functions_with_masks(library, function):
    rng = np.random.default_rng(3)
    for dtype in library.dtypes:
        given = arguments(function, (6, 7), dtype)
        where = rng.random((6, 7)) < 0.7
        where[2] = False
        for array in given:
            array[~where] = np.nan
        for axis in library.some([1, 0, None]):
            check(library, function, given, axis=axis, where=where)
        given = arguments(function, (6, 7), dtype)
        for small in library.some([where[0], where[:, :1], where[:1]]):
            check(library, function, given, axis=1, where=small, temperature=0.5)


@pytest.mark.parametrize("function", OF_SCORES)
def test_infinities_and_nan(library, function):
    infinite = np.inf
    rows = np.array(
        [
            [1, -infinite, 2, 0],
            [infinite, 0, infinite, -infinite],
            [-infinite] * 4,
            [np.nan, 0, infinite, 1],
            [90, 0, -90, 90],
            [0, 0, 0, 0],
        ]
    )
    for dtype in library.dtypes:
        for temperature in (1.0, 0, 2.0, infinite):
            check(library, function, [rows.astype(dtype)], axis=1, temperature=temperature)


def test_logsumexp_with_weights(library):
    rng = np.random.default_rng(5)
    for dtype in library.dtypes:
        x = rng.normal(size=(5, 6)).astype(dtype)
        b = np.abs(rng.normal(size=(5, 6))).astype(dtype)
        b[0, 1], x[0, 1] = 0, np.nan
        for axis in library.some([1, None, 0]):
            for keepdims in (False, True):
                options = {"axis": axis, "keepdims": keepdims, "return_sign": True}
                check(library, softly.logsumexp, [x], b=b, **options)
                check(library, softly.logsumexp, [x], b=-b, **options)
        check(library, softly.logsumexp, [x], axis=1, b=b)
        check(library, softly.logsumexp, [x], axis=1, b=-b)
        check(library, softly.logsumexp, [x], axis=1, b=b[0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_are_numpys(library, function):
    axis = last_axis(function)
    floats = [library.put(array) for array in arguments(function, (4, 5), SINGLE)]
    with pytest.raises(TypeError, match=r"\bout\b"):
        function(*floats, **axis, out=library.put(np.zeros((4, 5), np.float32)))
    with pytest.raises(TypeError, match=r"\bout\b"):
        function(*floats, **axis, out=np.zeros((4, 5), np.float32))
    numbers = [library.put(np.ones(3, np.complex64))] * len(floats)
    with pytest.raises(TypeError, match=rf"\b{names(function)[0]}\b"):
        function(*numbers)
    if function in ELEMENTWISE:
        return
    for axis in (2, -3, (0, 2)):
        with pytest.raises(np.exceptions.AxisError):
            function(*floats, axis=axis)
    with pytest.raises(ValueError, match="axis"):
        function(*floats, axis=(1, 1))
    with pytest.raises(ValueError, match="temperature"):
        function(*floats, axis=1, temperature=-1)
    with pytest.raises(ValueError, match="temperature"):
        function(*floats, axis=1, temperature=library.put(np.ones(3, np.float32)))
    with pytest.raises(ValueError, match="where"):
        function(*floats, axis=1, where=library.put(np.ones(4, bool)))
    with pytest.raises(TypeError, match="where"):
        function(*floats, axis=1, where=library.put(np.ones(5, np.float32)))
    nothing = [library.put(array) for array in arguments(function, (4, 0), SINGLE)]
    with pytest.raises(ValueError, match="at least one"):
        function(*nothing, axis=1)


@pytest.mark.parametrize("function", DERIVATIVES)
def test_directions_of_another_shape(library, function):
    p, g = (library.put(array) for array in arguments(function, (4, 5), SINGLE))
    with pytest.raises(ValueError, match=rf"\b{names(function)[1]}\b"):
        function(p, g[:3, :], axis=1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_integers(library, function):
    """float64, or what the library has for it: JAX has float32 unless told otherwise."""
    given = [np.array([[0, 1, 1], [1, 0, 1]], np.int32)] * len(names(function))
    wanted = function(*given)
    answer = library.take(function(*map(library.put, given)))
    assert answer.dtype == (np.float32 if library.name == "jax" else np.float64)
    np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-6)


# Dask and JAX, which compute later ----------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_dask_stays_lazy(function):
    """Nothing is computed to check it: the answer of a call that cannot be computed is an array."""
    library = pytest.importorskip("dask.array")

    def never(*_):
        raise AssertionError("it was computed")

    given = [
        library.from_array(array, chunks=(2, 3)).map_blocks(never, dtype=array.dtype, meta=array)
        for array in arguments(function, (4, 7), SINGLE)
    ]
    options = [{}]
    if function not in ELEMENTWISE:
        each = library.ones(4, dtype=np.float32, chunks=2).map_blocks(
            never, dtype=np.float32, meta=np.ones(4, np.float32)
        )
        mask = library.ones((4, 7), dtype=bool, chunks=3).map_blocks(
            never, dtype=bool, meta=np.ones((4, 7), bool)
        )
        options = [{"axis": axis} for axis in (0, 1, None)]
        options.append({"axis": 1, "temperature": each, "where": mask})
    for option in options:
        answer = function(*given, **option)
        assert isinstance(answer, library.Array)
        with pytest.raises(AssertionError, match="it was computed"):
            answer.compute(scheduler="synchronous")


@pytest.mark.parametrize("chunks", [(6, 7), (1, 7), (6, 1), (2, 3), ((1, 5), (4, 2, 1))], ids=str)
def test_any_chunks(chunks):
    library = pytest.importorskip("dask.array")
    for function in FUNCTIONS:
        given = arguments(function, (6, 7))
        arrays = [library.from_array(array, chunks=chunks) for array in given]
        for axis in [{}] if function in ELEMENTWISE else [{"axis": 0}, {"axis": 1}, {"axis": None}]:
            answer = function(*arrays, **axis).compute(scheduler="synchronous")
            np.testing.assert_allclose(answer, function(*given, **axis), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [SINGLE, BFLOAT16], ids=str)
def test_jax_compiles_them(function, dtype):
    jax = pytest.importorskip("jax")
    given = arguments(function, (6, 7), dtype)
    where, each = np.arange(7) < 5, np.linspace(0, 2, 6).astype(np.float32)
    options = {} if function in ELEMENTWISE else {"axis": 1, "temperature": 0.5}
    wanted = function(*given, **options)
    answer = jax.jit(lambda *arrays: function(*arrays, **options))(*given)
    assert isinstance(answer, jax.Array)
    assert answer.dtype == dtype
    eps = float(ml_dtypes.finfo(dtype).eps)
    close = {"rtol": 30 * eps, "atol": 8 * eps}
    np.testing.assert_allclose(np.asarray(answer, float), wanted.astype(float), **close)
    if function in ELEMENTWISE or function is softly.softmax_inverse:
        return
    # Temperatures and masks that are not known yet either.
    wanted = function(*given, axis=1, temperature=each[1:2].repeat(6), where=where)
    answer = jax.jit(
        lambda each, where, *arrays: function(*arrays, axis=1, temperature=each, where=where)
    )(each[1:2].repeat(6), where, *given)
    np.testing.assert_allclose(np.asarray(answer, float), wanted.astype(float), **close)


def test_jax_differentiates_them():
    """Their gradient there is the one that softmax_vjp gives."""
    jax = pytest.importorskip("jax")
    x, g = np.random.default_rng(7).normal(size=(2, 5, 6)).astype(np.float32)
    for function, vjp in [
        (softly.softmax, softly.softmax_vjp),
        (softly.log_softmax, softly.log_softmax_vjp),
    ]:
        answer, back = jax.vjp(lambda x, f=function: f(x, axis=1, temperature=0.5), x)
        wanted = vjp(np.asarray(answer), g, axis=1, temperature=0.5)
        np.testing.assert_allclose(np.asarray(back(g)[0]), wanted, rtol=1e-4, atol=1e-5)


# PyTorch: the kernels, on the tensor's own memory -----------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def tensor(torch, array):
    """The same bits, and for bfloat16 the same type."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def numbers(torch, tensor):
    """As a NumPy array, bit for bit."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(BFLOAT16)
    return tensor.numpy()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_tensors_get_numpys_bits(torch, function, dtype):
    rng = np.random.default_rng(9)
    options = [{}]
    if function not in ELEMENTWISE:
        options = [{"axis": axis} for axis in (None, 0, 1, (0, 2))]
        each, where = rng.uniform(0.1, 2, size=(4, 6)), rng.random((4, 5, 6)) < 0.7
        options.append({"axis": 1, "temperature": each, "where": where})
        number = temperatures(function)[0]
        options.append({"axis": 2, "temperature": number, "where": where[0]})
    given = arguments(function, (4, 5, 6), dtype)
    for option in options:
        wanted = function(*given, **option)
        tensors = [tensor(torch, array) for array in given]
        put = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in option.items()
        }
        answer = function(*tensors, **put)
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == tensors[0].dtype
        same_bits(numbers(torch, answer), np.asarray(wanted))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64", "bool"])
def test_tensors_of_integers_give_float64(torch, function, kind):
    given = [np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)] * len(names(function))
    answer = function(*map(torch.from_numpy, given))
    assert answer.dtype == torch.float64
    same_bits(answer.numpy(), np.asarray(function(*given)))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_tensors_that_are_not_contiguous(torch, function, dtype):
    given = arguments(function, (6, 8), dtype)
    axes = [{}] if function in ELEMENTWISE else [{"axis": 0}, {"axis": 1}, {"axis": None}]
    views = [lambda t: t.T, lambda t: t[::2, 1::3], lambda t: t[0].expand(4, 8), lambda t: t[2]]
    for axis in axes:
        for view in views:
            tensors = [view(tensor(torch, array)) for array in given]
            if tensors[0].ndim == 1 and axis == {"axis": 1}:
                continue
            arrays = [np.ascontiguousarray(numbers(torch, t)) for t in tensors]
            wanted = np.asarray(function(*arrays, **axis))
            same_bits(numbers(torch, function(*tensors, **axis)), wanted)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_out_tensor_is_written(torch, function, dtype):
    given = arguments(function, (4, 5), dtype)
    wanted = np.asarray(function(*given, **last_axis(function)))
    tensors = [tensor(torch, array) for array in given]
    out = tensor(torch, np.full_like(wanted, 7))
    address = out.data_ptr()
    assert function(*tensors, **last_axis(function), out=out) is out
    assert out.data_ptr() == address
    same_bits(numbers(torch, out), wanted)
    if function is not softly.logsumexp:  # in place, and into every second column
        assert function(*tensors, **last_axis(function), out=tensors[0]) is tensors[0]
        same_bits(numbers(torch, tensors[0]), wanted)
        tensors = [tensor(torch, array) for array in given]
        wide = tensor(torch, np.full((4, 10), 7, dtype))
        function(*tensors, **last_axis(function), out=wide[:, ::2])
        same_bits(np.ascontiguousarray(numbers(torch, wide)[:, ::2]), wanted)
        assert (wide[:, 1::2] == 7).all()


def test_the_answer_has_memory_of_its_own(torch):
    t = torch.ones(5)
    answer = softly.softmax(t)
    answer[0] = 9
    assert (t == 1).all()
    del t
    assert answer.tolist() == pytest.approx([9] + [0.2] * 4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_tensor_that_wants_a_gradient_is_refused(torch, function):
    """Rather than giving an answer that silently has none."""
    given = arguments(function, (4, 5), SINGLE)
    for place in range(len(given)):
        tensors = [torch.from_numpy(array) for array in given]
        tensors[place] = tensors[place].clone().requires_grad_()
        with pytest.raises(TypeError, match=rf"\b{names(function)[place]}\b.*detach\(\)"):
            function(*tensors)
        with torch.no_grad(), pytest.raises(TypeError, match=r"detach\(\)"):
            function(*tensors)
        tensors[place] = tensors[place].detach()
        function(*tensors)


def test_temperatures_and_room_that_want_a_gradient_are_refused(torch):
    t = torch.ones(4, 5)
    with pytest.raises(TypeError, match=r"\btemperature\b.*detach\(\)"):
        softly.softmax(t, axis=1, temperature=torch.ones(4, requires_grad=True))
    with pytest.raises(TypeError, match=r"\bout\b.*detach\(\)"):
        softly.softmax(t, axis=1, out=torch.full((4, 5), 7.0, requires_grad=True))


def test_errors_of_tensors_are_numpys(torch):
    t = torch.arange(20.0).reshape(4, 5)
    out = torch.full((4, 5), 7.0)
    wrong = [
        (TypeError, r"\bx\b", lambda: softly.softmax(t.to(torch.complex64), axis=1, out=out)),
        (TypeError, r"out\b.*float64.*float32", lambda: softly.softmax(t, out=out.double())),
        (TypeError, r"out\b.*bfloat16.*float32", lambda: softly.softmax(t, out=out.bfloat16())),
        (ValueError, r"out\b.*\(3, 5\)", lambda: softly.softmax(t, out=out[:3])),
        (ValueError, r"out\b.*overlap", lambda: softly.softmax(t[:3], axis=1, out=t[1:])),
        (ValueError, r"out\b.*overlap", lambda: softly.softmax(t[:, :4], out=t[:, :4].T)),
        (ValueError, "temperature", lambda: softly.softmax(t, temperature=-1.0, out=out)),
        (
            ValueError,
            r"temperature\b.*-1",
            lambda: softly.softmax(t, axis=1, temperature=-torch.ones(4), out=out),
        ),
        (ValueError, "where", lambda: softly.softmax(t, where=torch.ones(4) > 0, out=out)),
        (TypeError, r"where\b.*bool", lambda: softly.softmax(t, where=torch.ones(5), out=out)),
        (ValueError, "at least one", lambda: softly.softmax(t[:, :0], axis=1, out=out[:, :0])),
        (np.exceptions.AxisError, "2", lambda: softly.softmax(t, axis=2, out=out)),
    ]
    for exception, message, call in wrong:
        with pytest.raises(exception, match=message):
            call()
    assert (out == 7).all()
    assert (t == torch.arange(20.0).reshape(4, 5)).all()


def test_tensors_that_are_views_of_other_types_are_not_misread(torch):
    """The imaginary part of a conjugate is stored with the other sign; PyTorch may refuse it."""
    t = torch.complex(torch.ones(5), torch.arange(5.0)).conj().imag
    with suppress(RuntimeError):
        same_bits(softly.softmax(t).numpy(), softly.softmax(-np.arange(5, dtype=np.float32)))


def test_no_tensor_is_copied():
    """Nor is the generic form loaded for those that lie where the kernels can read them."""
    pytest.importorskip("torch")
    code = """
import resource, sys, torch, softly
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for dtype in (torch.float32, torch.bfloat16):
    t = torch.ones(1000, 32_000, dtype=dtype)
    softly.softmax(t[:100, :1000], axis=1)
    before = peak()
    for axis in (0, 1):
        softly.softmax(t, axis=axis, out=t)
        softly.logsumexp(t, axis=axis)
    print(100 * (peak() - before) // t.nbytes, end=" ")
print("array_api_compat" in sys.modules)
"""
    if sys.platform == "linux" and chosen.name.startswith("native"):
        *percents, generic = run(code).split()
        assert max(map(int, percents)) <= 10
        assert generic == "False"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tensors_elsewhere_take_the_generic_form(torch, function):
    """The meta device, which every build has, stands for CUDA: shapes, types and the device."""
    given = [torch.empty(4, 5, device="meta")] * len(names(function))
    answer = function(*given, **last_axis(function))
    assert answer.device.type == "meta"
    assert answer.shape == ((4,) if function is softly.logsumexp else (4, 5))
    assert answer.dtype == torch.float32
    with pytest.raises(TypeError, match=r"\bout\b"):
        function(*given, **last_axis(function), out=torch.empty(4, 5, device="meta"))


# No mixtures --------------------------------------------------------------------------------------


MIXED = [
    lambda a, b: softly.softmax_vjp(a((4, 5)), b((4, 5)), axis=1),
    lambda a, b: softly.softmax_jvp(a((4, 5)), b((4, 5)), axis=1),
    lambda a, b: softly.log_softmax_vjp(-a((4, 5)), b((4, 5)), axis=1),
    lambda a, b: softly.softmax(a((4, 5)), axis=1, temperature=b(4)),
    lambda a, b: softly.softmax(a((4, 5)), axis=1, where=b((4, 5)) > 0),
    lambda a, b: softly.softmax(a((4, 5)), axis=1, out=b((4, 5))),
    lambda a, b: softly.logsumexp(a((4, 5)), axis=1, b=b((4, 5))),
    lambda a, b: softly.sigmoid(a(4), out=b(4)),
]


@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("pair", ["torch and numpy", "strict and numpy", "torch and strict"])
def test_mixed_libraries_are_refused(mixed, pair):
    first, _, second = pair.split()

    def ones(name):
        if name == "numpy":
            return lambda shape: np.ones(shape, np.float32)
        library = pytest.importorskip({"strict": "array_api_strict"}.get(name, name))
        return lambda shape: library.ones(shape, dtype=library.float32)

    for a, b in [(first, second), (second, first)]:
        with pytest.raises(TypeError, match=r"(?i)numpy|torch|array_api_strict"):
            mixed(ones(a), ones(b))


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_numbers_go_with_every_library(torch, function):
    given = arguments(function, (4, 5))
    wanted = function(*given, axis=1, temperature=2)
    for number in (2, 2.0, np.float32(2), np.int64(2)):
        answer = function(*map(torch.from_numpy, given), axis=1, temperature=number, where=True)
        same_bits(answer.numpy(), wanted)


# What is imported ---------------------------------------------------------------------------------


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = {"array_api_compat", "array_api_strict", "dask", "jax", "ml_dtypes", "torch"}


def test_numpy_arrays_import_no_other_library():
    """Neither does importing softly; test_threads.py has the rest of the heavy ones."""
    code = f"""
import sys
import softly
assert not {HEAVY} & set(sys.modules)
import numpy as np
x = np.full((4, 5), 0.5, np.float32)
for name in {[function.__name__ for function in FUNCTIONS]}:
    function = getattr(softly, name)
    given = [x, x] if name.endswith(("vjp", "jvp")) else [x]
    options = [{{}}]
    if name not in {[function.__name__ for function in ELEMENTWISE]}:
        options += [{{"axis": 1, "temperature": np.ones(4), "where": x > 0}}]
    for option in options:
        function(*given, **option)
        function(*(array.tolist() for array in given), **option)
softly.cross_entropy(x, np.zeros(4, int), return_grad=True)
print(sorted({HEAVY} & set(sys.modules)))
"""
    assert run(code) == "[]\n"
