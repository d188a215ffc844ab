"""Fixtures of the GC of externrefs. PeachPy is imported by those that need it."""

import pytest

from asm_libcalls import Global, Instance, StackMapRegistry, Table


@pytest.fixture
def host(machine_code):
    from gc_frames import Host

    host = Host()
    yield host
    host.function.close()


@pytest.fixture
def registry():
    return StackMapRegistry()


@pytest.fixture
def instance(registry):
    return Instance(
        tables=[Table("externref", 4)],
        globals=[Global("externref", None, True)],
        stack_map_registry=registry,
    )


@pytest.fixture
def hold(host, registry):
    from gc_frames import HOLD_MAPS, hold_body
    from native_code import NativeCode

    code = NativeCode({"hold": hold_body}, {"host": host.address})
    code.register(registry, "hold", HOLD_MAPS)
    return code
