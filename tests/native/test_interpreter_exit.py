"""Objects that are alive when Python exits are released silently."""

import pytest
from free_threading import WITHOUT_GIL


@pytest.mark.parametrize(
    "make",
    [
        "owner = Table('externref', 1); owner[0] = holder",
        "owner = Global('externref', holder, mutable=True)",
        "owner = Instance(elements=[('externref', [holder])])",
        "owner = VMExternRef(holder)",
    ],
    ids=["table", "global", "segment", "reference"],
)
def test_a_cycle_through_a_box_ends_quietly(make, child):
    done = child(f"""
        from asm_libcalls import Global, Instance, Table, VMExternRef
        class Holder: pass
        holder = Holder()
        {make}
        holder.owner = owner
        del owner, holder
        """)
    assert done.stderr == ""


def test_so_do_cycles_while_native_code_keeps_a_python_function(child):
    """Modules go in another order then."""
    done = child("""
        import asm_libcalls
        host = asm_libcalls.HostFunction(lambda: None, "()")
        class Holder: pass
        holder = Holder()
        holder.table = asm_libcalls.Table("externref", 1)
        holder.table[0] = holder
        holder.kept = asm_libcalls.Global("externref", holder, mutable=True)
        holder.instance = asm_libcalls.Instance(elements=[("externref", [holder])])
        del holder
        """)
    assert done.stderr == ""


@pytest.mark.parametrize("backend", ["auto", "fallback"])
@pytest.mark.parametrize("how", ["a global", "in a cycle", "held by the package"])
def test_the_first_use_of_a_libcall_may_be_in_a_finalizer(child, how, backend):
    keep = {
        "a global": "late = Late()",
        "in a cycle": "late = Late(); late.itself = late",
        "held by the package": "asm_libcalls.late = Late()",
    }[how]
    done = child(
        f"""
        import asm_libcalls

        class Late:
            def __del__(self):
                given = (
                    asm_libcalls.i64_sdiv(7, 2), asm_libcalls.i64_ushr(-1, 63),
                    asm_libcalls.f64_nearest(2.5), asm_libcalls.f32_ceil(-0.5),
                )
                assert given == (3, 1, 2.0, 0.0), given
                try:
                    asm_libcalls.i64_srem(7, 0)
                except ZeroDivisionError:
                    print("done")

        {keep}
        """,
        variables={"ASM_LIBCALLS_BACKEND": backend},
    )
    assert done.stderr == ""
    assert done.stdout.split() in (["done"], [])  # CPython may drop what a module holds
    if how != "held by the package":
        assert done.stdout.split() == ["done"]


def test_a_finalizer_makes_functions_when_nothing_can_be_imported(child):
    done = child("""
        import builtins, ctypes
        from asm_libcalls import catch_traps, native_function
        labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
        class Other:
            def __index__(self):
                return -9
        def use():
            made = native_function(labs, "(i64) -> i64"), catch_traps(labs, "(i64) -> i64")
            for function in made:
                assert (function(-3), function(True), function(Other())) == (3, 1, 9)
        use()
        class Last:
            def __del__(self):
                use()
                print("done")
        builtins.last = Last()
        """)
    assert done.stdout == "done\n"


def test_a_destructor_uses_all_after_the_modules_are_cleared(child):
    """Memory that native code reads is not freed with the modules; freed memory is overwritten."""
    done = child(
        """
        import builtins, ctypes, os, sys
        import asm_libcalls
        from asm_libcalls import (
            Global, HostFunction, Instance, Table, VMExternRef, catch_traps,
            externref_global_set, table_fill,
        )

        class Last:
            def __init__(self):
                self.instance = Instance(
                    tables=[Table("externref", 300)], globals=[Global("externref", None, True)]
                )
                self.fill, self.set = table_fill, externref_global_set
                self.reference = VMExternRef(1)
                self.owners = ctypes.c_size_t.from_address(self.reference.as_raw())
                host = HostFunction(abs, "(i64) -> i64")
                self.host = catch_traps(host.address, "(i64) -> i64")
                self.host(1)

            def __del__(self, write=os.write):
                self.set(self.instance, 0, self.reference)
                self.set(self.instance, 0, None)
                self.fill(self.instance, 0, 0, self.reference, 300)
                self.fill(self.instance, 0, 0, None, 300)
                write(1, b"%d %d" % (self.host(-5), self.owners.value))

        builtins.table = Table("externref", 1)
        builtins.table[0] = Last()
        builtins.kept = [m for name, m in sys.modules.items() if name.startswith("asm_libcalls")]
        """,
        # Freed memory is overwritten. Without the GIL Python has an allocator of its own only.
        variables={
            "MALLOC_PERTURB_": "85",
            "PYTHONMALLOC": "debug" if WITHOUT_GIL else "malloc",
        },
    )
    assert done.stderr == ""
    assert done.stdout in ("5 1", "")  # CPython may not drop what a module holds


def test_a_name_that_is_first_used_then_is_an_error_that_says_so(child):
    done = child("""
        import asm_libcalls
        class Last:
            def __del__(self, package=asm_libcalls):
                for name in ("Memory", "toy_jit"):
                    try:
                        getattr(package, name)
                    except ImportError as error:
                        print(error)
        last = Last()
        """)
    assert done.stdout.splitlines() == [
        f"asm_libcalls.{name} is first used at interpreter exit, when nothing can be imported"
        for name in ("Memory", "toy_jit")
    ]
