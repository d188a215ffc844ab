"""A Resource is released when its last owner is gone, after every finalizer that may use it."""

import gc

import pytest

from asm_libcalls.owned.objects import Resource


class Owner:
    """Refers to itself, so that only the collector frees it; uses the resource as it goes."""

    def __init__(self, log, resource):
        self.log = log
        self.resource = resource
        self.itself = self

    def __del__(self):
        self.log.append("finalizer")


def test_the_last_reference_releases():
    log = []
    resource = Resource(lambda: log.append("released"))
    other = resource
    del resource
    assert log == []
    del other
    assert log == ["released"]


@pytest.mark.parametrize("first", [True, False])
def test_finalizers_of_a_cycle_come_first(first):
    log = []
    for _ in range(10):
        resource = Resource(lambda: log.append("released"))
        owners = [Owner(log, resource) for _ in range(3)]
        owners[0].others = owners if first else owners[::-1]
        if not first:
            owners.append(Owner(log, resource))
        del resource, owners
        gc.collect()
        assert log[-1] == "released"
        assert log.count("released") == 1
        log.clear()


def test_what_comes_back_to_life_keeps_it():
    log = []
    alive = []

    class Phoenix(Owner):
        def __del__(self):
            super().__del__()
            alive.append(self)

    Phoenix(log, Resource(lambda: log.append("released")))
    gc.collect()
    assert log == ["finalizer"]
    gc.collect()
    assert log == ["finalizer"]
    alive.clear()  # Python calls no finalizer twice
    gc.collect()
    gc.collect()
    assert log == ["finalizer", "released"]


def test_an_unmade_one_is_silent():
    class Unmade(Resource):
        def __init__(self):
            raise MemoryError

    with pytest.raises(MemoryError):
        Unmade()


def test_nothing_is_released_at_exit(child):
    done = child(
        """
        from asm_libcalls.owned.objects import Resource
        class Owner:
            def __del__(self):
                print("finalizer")
        kept = Owner()
        kept.itself = kept
        kept.resource = Resource(lambda: print("released"))
        """
    )
    assert done.stdout == "finalizer\n"
