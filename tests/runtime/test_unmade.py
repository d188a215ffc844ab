"""Objects whose ``__init__`` was not called: each use of each ends in an exception or a value."""

import json
from operator import attrgetter

import pytest
from child_process import run_child

import asm_libcalls

pytestmark = pytest.mark.usefixtures("machine_code")

USE_ALL = """
    import inspect, json, warnings
    import asm_libcalls
    from asm_libcalls import llvm, toy_jit
    from asm_libcalls.toy_jit import wasi

    warnings.simplefilter("ignore")  # coroutines that are not awaited
    ARGUMENTS = [(), (0,), (1, 2), ("x",), (0, 0, 0)]
    WITH = [repr, hash, bool, len, list, memoryview, lambda it: it == it, lambda it: it(1)]
    classes = {
        value
        for module in (asm_libcalls, toy_jit, wasi, llvm)
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name)) and not issubclass(value, BaseException)
    }
    used = {}
    for cls in classes:
        try:
            it = cls.__new__(cls)
        except TypeError:
            continue  # it needs arguments
        uses = used[cls.__name__] = []
        for use in WITH:
            try:
                use(it)
            except Exception as error:
                uses.append(type(error).__name__)
        for name in dir(it):
            if name.startswith("_") and name not in ("__enter__", "__getitem__", "__setitem__"):
                continue
            try:
                value = getattr(it, name)
            except Exception as error:
                uses.append(type(error).__name__)
                continue
            for arguments in ARGUMENTS if callable(value) else ():
                try:
                    value(*arguments)
                except Exception as error:
                    uses.append(type(error).__name__)
        del it
    print(json.dumps(used))
"""


def test_no_use_of_an_object_that_was_not_made_is_a_crash(tmp_path):
    used = json.loads(run_child(USE_ALL, folder=tmp_path).stdout)
    assert {"Instance", "Memory", "Table", "Global", "VMExternRef", "HostFunction"} <= set(used)
    for name, errors in used.items():
        assert "SystemError" not in errors, name
        assert "AssertionError" not in errors, name


def _classes():
    from asm_libcalls import toy_jit
    from asm_libcalls.toy_jit.wasi import Preview1

    return [
        *(asm_libcalls.Memory, asm_libcalls.Table, asm_libcalls.Global, asm_libcalls.Instance),
        *(asm_libcalls.ElementSegment, asm_libcalls.StackMapRegistry, asm_libcalls.HostFunction),
        *(asm_libcalls.VMExternRef, asm_libcalls.FuncRef, asm_libcalls.Code, asm_libcalls.Libcall),
        *(toy_jit.Instance, toy_jit.Module, toy_jit.StoreLimits, Preview1),
    ]


def test_what_init_sets_is_an_error_that_says_so():
    """No private name is in the error, and ``hasattr`` is False."""
    for cls in _classes():
        for derived in (cls, type("Derived", (cls,), {"__init__": lambda self: None})):
            it = derived.__new__(derived)
            if derived is not cls:
                it.__init__()
            refused = []
            uses = [repr, hash, *(attrgetter(n) for n in dir(cls) if not n.startswith("_"))]
            for use in uses:
                try:
                    use(it)
                except ValueError as error:
                    refused.append(str(error))
            assert refused
            name = derived.__name__
            assert {*refused} == {f"the {name} was not made: {name}.__init__() did not end"}
            if hasattr(it, "closed"):
                it.close()
                assert it.closed


@pytest.mark.parametrize(
    "use",
    [
        lambda it: it(),
        lambda it: it.call_bits(1),
        lambda it: it.__native_address__("pointer"),
        lambda it: it.__signature__,
        repr,
    ],
    ids=["call", "call_bits", "address", "signature", "repr"],
)
def test_an_export_that_was_not_made_says_so(use):
    """Its ``__new__`` takes arguments, so that the test above leaves it out."""
    with pytest.raises(ValueError, match=r"^the Func was not made"):
        use(asm_libcalls.toy_jit.Func.__new__(asm_libcalls.toy_jit.Func, None, 0, 0))
