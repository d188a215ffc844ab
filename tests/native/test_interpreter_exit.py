"""What is still alive when Python exits goes without a word."""

from __future__ import annotations

import pytest


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
    done = child(
        f"""
        from asm_libcalls import Global, Instance, Table, VMExternRef
        class Holder: pass
        holder = Holder()
        {make}
        holder.owner = owner
        del owner, holder
        """
    )
    assert done.stderr == ""


def test_so_do_cycles_while_native_code_keeps_a_python_function(child):
    """Modules go in another order then."""
    done = child(
        """
        import asm_libcalls
        host = asm_libcalls.HostFunction(lambda: None, "()")
        class Holder: pass
        holder = Holder()
        holder.table = asm_libcalls.Table("externref", 1)
        holder.table[0] = holder
        holder.kept = asm_libcalls.Global("externref", holder, mutable=True)
        holder.instance = asm_libcalls.Instance(elements=[("externref", [holder])])
        del holder
        """
    )
    assert done.stderr == ""
