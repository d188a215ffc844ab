"""A Libcall as an object: keywords, pickles, copies, and the fallback's address."""

import copy
import pickle

import pytest

import asm_libcalls


def test_keyword_argument(binding):
    libcall = binding.libcalls["i64_sdiv"]
    for _ in range(2):  # the first call and later ones
        for function in (libcall, libcall.fallback):
            with pytest.raises(TypeError, match=r"\bi64_sdiv\(\) takes no keyword arguments"):
                function(dividend=7, divisor=2)


def test_libcalls_are_made_once(binding):
    other = binding.libcalls["i64_urem"]
    for thing, arguments in (
        (binding.libcalls["i64_sdiv"], (other.declaration, binding)),
        (binding.libcalls["i64_sdiv"].fallback, (other,)),
    ):
        with pytest.raises(RuntimeError, match=r"__init__\(\) was called again"):
            thing.__init__(*arguments)
        assert thing.name == "i64_sdiv"
        assert thing(7, -2) == -3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_libcalls_go_by_name_through_pickle(protocol):
    for libcall in asm_libcalls.LIBCALLS.values():
        assert pickle.loads(pickle.dumps(libcall, protocol)) is libcall
        other = libcall.fallback
        assert pickle.loads(pickle.dumps(other, protocol)) is other
        signature = pickle.loads(pickle.dumps(libcall.signature, protocol))
        assert signature == libcall.signature
        assert (signature.parameters, signature.result) == (
            libcall.signature.parameters,
            libcall.signature.result,
        )


def test_libcalls_are_their_own_copies(binding):
    for libcall in binding.libcalls.values():
        for thing in (libcall, libcall.fallback):
            assert copy.copy(thing) is thing
            assert copy.deepcopy([thing])[0] is thing


def test_fallback_of_a_libcall_has_one_address(accelerated):
    """A callback is never freed, so each is made once."""
    libcall = accelerated.libcalls["i64_urem"]
    assert libcall.fallback.address == libcall.fallback.address
    assert libcall.fallback.address != libcall.address or libcall.backend == "fallback"
    assert libcall.fallback.backend == "fallback"
    assert libcall.fallback(-1, 10) == 5
