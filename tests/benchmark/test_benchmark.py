"""The benchmark: measuring, reporting, saving, comparing and drawing.

No test asserts a time: clocks are simulated, or only the structure of a quick run is tested.
"""

import ctypes
import json
import random
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import asm_libcalls
import compare_benchmarks
import plot_benchmark
from asm_libcalls import cli
from asm_libcalls.benchmark import (
    arrays,
    calls,
    imports,
    llvm,
    memory,
    native,
    places,
    references,
    timing,
    toy_jit,
)
from asm_libcalls.benchmark import (
    peers as peers_module,
)
from asm_libcalls.benchmark import (
    results as results_module,
)
from asm_libcalls.benchmark.peers import Peers
from asm_libcalls.benchmark.results import Results
from asm_libcalls.benchmark.timing import OURS, Candidate, Case, Effort, Figure, Spread, Timed
from asm_libcalls.binding import default_binding
from compare_benchmarks import compare

EFFORT = Effort(rounds=9, fewest_rounds=3, sample=1e-3, case=1.0)


class Clock:
    """A clock that only moves when a candidate runs."""

    def __init__(self):
        self.now = 0
        self.order = []

    def __call__(self):
        return self.now

    def candidate(self, label, *nanoseconds):
        """Take these times in turn, for each time it runs."""
        turn = iter(range(10**9))

        def run(times):
            self.order.append(label)
            self.now += times * nanoseconds[next(turn) % len(nanoseconds)]

        return Candidate(label, run)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "_clock", clock)
    return clock


def test_spread():
    assert timing.spread([5.0]) == (5, 5, 5)
    assert timing.spread([3.0, 1.0, 2.0]) == (2, 1.5, 2.5)
    assert timing.spread([4.0, 1.0, 2.0, 3.0, 10.0]) == (3, 2, 4)


def test_figures_are_for_one_operation(clock):
    case = Case("s", "c", 0, 20, (clock.candidate(OURS, 400), clock.candidate("peer", 1000)))
    timed = timing.measure(case, EFFORT)
    assert timed.figures[OURS].nanoseconds.median == pytest.approx(20)
    assert timed.figures["peer"].nanoseconds.median == pytest.approx(50)
    assert timed.figures[OURS].ratio == (1, 1, 1)
    assert timed.figures["peer"].ratio.median == pytest.approx(0.4)


def test_ratios_are_of_samples_of_one_round(clock):
    """A machine that is slower every other round is slower for both candidates."""
    slow = [100, 1000]
    case = Case("s", "c", 0, 1, (clock.candidate("peer", *slow), clock.candidate(OURS, *slow)))
    timed = timing.measure(case, EFFORT._replace(sample=1e-9))
    assert timed.figures["peer"].ratio == pytest.approx((1, 1, 1))
    assert timed.figures["peer"].nanoseconds.high > timed.figures["peer"].nanoseconds.low


def test_nobody_always_follows_the_same(clock):
    """In a fixed order it would find the caches as that one leaves them."""
    case = Case("s", "c", 0, 1, tuple(clock.candidate(label, 10) for label in ("a", "b", "c")))
    rounds = timing.measure(case, EFFORT).rounds
    last = clock.order[-3 * rounds :]
    orders = ["".join(last[i : i + 3]) for i in range(0, 3 * rounds, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) > 3


def test_slow_candidates_get_fewer_rounds_but_some(clock):
    fast = Case("s", "c", 0, 1, (clock.candidate(OURS, 1000),))
    slow = Case("s", "c", 0, 1, (clock.candidate(OURS, 600_000_000),))
    assert timing.measure(fast, EFFORT).rounds == 9
    assert timing.measure(slow, EFFORT).rounds == 3


def test_one_disturbed_sample_does_not_shorten_all_others(clock):
    """The first sample takes long, as if another program had used the processor."""
    disturbed = clock.candidate(OURS, 10, 50_000_000, *[10] * 10_000)
    assert timing._times_for(disturbed, 1e-3) > 50_000


def test_two_candidates_of_one_label_are_refused(clock):
    case = Case("s", "c", 0, 1, (clock.candidate("a", 1), clock.candidate("a", 1)))
    with pytest.raises(ValueError, match="two candidates of one label"):
        timing.measure(case, EFFORT)


@pytest.fixture(scope="module")
def peers():
    return Peers()


def all_cases(module, peers):
    return list(module.cases(peers, quick=True))


@pytest.mark.parametrize("module", [calls, native, llvm, memory, references, arrays, toy_jit])
def test_cases_of_a_suite(module, peers):
    """Every case has ours and a peer, every candidate runs, and no two cases are the same."""
    cases = all_cases(module, peers)
    if not cases:
        assert any(note.startswith(f"suite {module.SUITE} is left out") for note in peers.notes)
        assert module in (native, llvm, memory, references, toy_jit)
        return
    for case in cases:
        labels = [candidate.label for candidate in case.candidates]
        assert labels[0] == OURS
        assert len(labels) == len(set(labels))
        # All peers of toy_jit are packages, and libgcc lacks some of the functions.
        assert len(labels) > 1 or module in (llvm, toy_jit)
        for candidate in case.candidates:
            candidate.run(1)
    keys = [(case.name, case.size) for case in cases]
    assert len(keys) == len(set(keys))


def test_calls_have_the_right_functions(peers):
    """All candidates of a case give the same result."""
    seen = []
    of_memory = {}

    def watch(function, arguments, convert=None):
        if isinstance(arguments[0], (bytes, bytearray, np.ndarray)) and len(arguments) == 1:
            address = function(*arguments) if convert is None else function(convert(arguments[0]))
            of_memory.setdefault(id(arguments[0]), set()).add(address)
        else:
            seen.append((function, arguments))
        return lambda times: None

    original, calls._caller = calls._caller, watch
    try:
        cases = all_cases(calls, peers)
    finally:
        calls._caller = original
    assert {case.name for case in cases} >= {"f64_ceil", "i64_sdiv beyond 2^30"}
    assert seen[0][0] is asm_libcalls.f64_ceil
    if asm_libcalls.LIBCALLS["i64_ishl"].backend == "x86_64":
        assert [len(addresses) for addresses in of_memory.values()] == [1, 1, 1]
    by_arguments = {}
    for function, arguments in seen:
        result = function(*arguments)
        if not isinstance(arguments[0], (int, float, np.generic)) or arguments[0] > 2**32:
            continue  # an address, or an object that has one
        if "fabs" not in repr(function) and result is not None:  # which moves bytes
            key = tuple(int(x) if float(x).is_integer() else float(x) for x in arguments)
            # An export that returns its arguments has two results, in the other order.
            number = result[::-1] if isinstance(result, tuple) else float(result)
            by_arguments.setdefault(key, set()).add(number)
    by_arguments.pop((2.5,))  # ceil, nearest and floor
    # sdiv and srem share operands.
    assert all(len(results) <= 2 for results in by_arguments.values())
    assert by_arguments[7, 2] == {3.0}


def test_callers_call_as_often_as_they_say():
    counted = []
    run_it = calls._caller(lambda *arguments: counted.append(arguments), (1, 2.5))
    run_it(3)
    assert counted == [(1, 2.5)] * 3 * calls.UNROLLED


def test_native_candidates_compute(peers):
    if default_binding().x86_64 is None:
        pytest.skip("no machine code runs on this machine")
    from asm_libcalls.x86_64.call_loops import NativeLoops

    (operands,) = (o for _, o in native._operands(np, "f64_floor"))
    out = np.zeros_like(operands[0])
    for address in (
        asm_libcalls.LIBCALLS["f64_floor"].address,
        peers.c_function("floor"),
        peers.plain_function("f64_floor"),
    ):
        if address:
            out[:] = 0
            NativeLoops().function("(f64) -> f64")(
                address, operands[0].ctypes.data, out.ctypes.data, native.COUNT
            )
            assert (out == np.floor(operands[0])).all()


def test_arrays_are_laid_out_as_they_say():
    for steps in ((1, 1), (2, 1), (2, 2)):
        sets = arrays._arrays(np, "ceil", "f4", 10, steps)
        assert len(sets) == arrays.PLACES
        for operand, output in sets:
            assert [x.strides[0] for x in (operand, output)] == [4 * step for step in steps]
            assert operand.shape == output.shape == (10,)
    sets = arrays._arrays(np, "sdiv", "i8", 1000, (1, 0, 1))
    assert len(sets) == min(arrays.FRESH // 1000, 64)
    for dividend, divisor, output in sets:
        assert (dividend.shape, divisor.shape, output.shape) == ((1000,), (), (1000,))
        assert divisor not in (0, -1)


def test_integer_case_goes_through_all_its_arrays():
    seen = []
    sets = [(np.zeros(3), np.ones(3), np.zeros(3)) for _ in range(4)]
    arrays._all_arrays("x", lambda a, b, out: seen.append(id(out)), sets).run(2)
    assert seen == [id(out) for _, _, out in sets] * 2
    seen.clear()
    one_by_one = arrays._next_arrays("x", lambda a, b, out: seen.append(id(out)), sets)
    for _ in range(4):
        one_by_one.before()
        one_by_one.run(2)
    assert sorted(seen) == sorted(id(out) for _, _, out in sets * 3)


def test_missing_peers_are_left_out_with_a_note(monkeypatch):
    def absent(name):
        if name in ("cffi", "numba"):
            raise ImportError(f"No module named {name!r}")
        return __import__(name)

    monkeypatch.setattr(peers_module.importlib, "import_module", absent)
    monkeypatch.setattr(peers_module.shutil, "which", lambda name: None)
    peers = Peers()
    assert peers.notes == [
        "cffi is left out: No module named 'cffi'",
        "numba is left out: No module named 'numba'",
        "compiled C is left out: there is no C compiler",
    ]
    assert peers.plain_function("f64_ceil") == 0
    assert peers.c_function("no_such_function_anywhere") == 0
    assert "no_such_function_anywhere" in peers.notes[-1]
    labels = {c.label for case in calls.cases(peers, quick=True) for c in case.candidates}
    assert not any("cffi" in label or "numba" in label for label in labels)


def test_a_failing_compiler_is_a_note(monkeypatch):
    monkeypatch.setattr(peers_module, "C_SOURCE", "this is no C\n")
    monkeypatch.setenv("CC", "cc")
    peers = Peers()
    assert not peers.plain_function("f64_ceil")
    assert any(note.startswith("compiled C is left out") for note in peers.notes)


def figure(nanoseconds, ratio, width=0.01):
    def around(x):
        return Spread(x, x * (1 - width), x * (1 + width))

    return Figure(around(nanoseconds), around(ratio))


def made_up(ratio, *, ours=10.0, width=0.01, name="case", size=0, others=None):
    figures = {OURS: figure(ours, 1), "peer": figure(ours / ratio, ratio, width)}
    for label, other in (others or {}).items():
        figures[label] = figure(ours / other, other, width)
    return Timed("calls", name, size, 9, figures)


def a_run(*cases, **about):
    return Results(cases, {"date": "today", **about}, ["a note"], False)


def test_json_goes_around(tmp_path):
    path = tmp_path / "run.json"
    before = a_run(made_up(0.5), made_up(0.25, name="other", size=100), cpu="a CPU")
    before.write(path)
    after = Results.read(path)
    assert after.about == before.about
    assert after.notes == before.notes
    assert after.quick is False
    for a, b in zip(before.cases, after.cases, strict=True):
        assert a[:4] == b[:4]
        for label, own in a.figures.items():
            assert b.figures[label].ratio == pytest.approx(own.ratio, rel=1e-4)
            assert b.figures[label].nanoseconds == pytest.approx(own.nanoseconds, rel=1e-4)
    assert compare(before, after) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a run"),
        ('{"format": 99}', "format 99, this reads 1"),
        ('{"format": 1, "cases": [{}]}', "is not a run"),
    ],
)
def test_other_files_are_refused(text, complaint, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        Results.read(path)


def test_compare_names_what_became_slower():
    before = a_run(made_up(0.5, name="a"), made_up(0.5, name="b"), made_up(0.5, name="c"))
    after = a_run(made_up(0.5, name="a"), made_up(0.7, name="b"), made_up(1.5, name="c"))
    worst, other = compare(before, after)
    assert (worst.case, worst.against, worst.factor) == ("calls: c", "peer", pytest.approx(3))
    assert other.case == "calls: b"
    assert "3.00 times as slow: 0.5 of peer before" in str(worst)
    assert compare(after, before) == []


def test_compare_lets_noise_pass():
    assert compare(a_run(made_up(1.0)), a_run(made_up(1.08))) == []  # below the threshold
    wide = made_up(1.0, width=0.3), made_up(1.3, width=0.3)
    assert compare(a_run(wide[0]), a_run(wide[1])) == []  # quartiles overlap


def test_compare_is_not_fooled_by_a_slower_machine_or_one_faster_peer():
    slower = a_run(made_up(0.5, ours=100.0))
    assert compare(a_run(made_up(0.5, ours=10.0)), slower) == []
    before = a_run(made_up(0.5, others={"second": 0.5, "third": 0.5}))
    after = a_run(made_up(1.0, others={"second": 0.5, "third": 0.5}))
    assert compare(before, after) == []


def test_compare_looks_at_nanoseconds_where_no_peer_is_in_both():
    def alone(ns):
        return Timed("calls", "alone", 7, 9, {OURS: figure(ns, 1), f"{OURS} else": figure(1, 1)})

    (change,) = compare(a_run(alone(10)), a_run(alone(20)))
    assert (change.case, change.against) == ("calls: alone, 7", "")
    assert compare(a_run(alone(10)), a_run(made_up(9.0))) == []  # another case


def test_compare_command(tmp_path, capsys):
    paths = tmp_path / "a.json", tmp_path / "b.json"
    a_run(made_up(0.5), cpu="one").write(paths[0])
    a_run(made_up(1.0), cpu="two").write(paths[1])
    assert compare_benchmarks.main([*map(str, paths)]) == 1
    out = capsys.readouterr().out
    assert "note: other CPUs: one, then two" in out
    assert "2.00 times as slow" in out
    assert "1 cases in both runs, 1 slower beyond noise" in out
    assert compare_benchmarks.main([str(paths[1]), str(paths[0])]) == 0
    assert compare_benchmarks.main([str(paths[0]), str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*places._COPIES, "init", "fill"])
def test_places_compares_the_same_work(name, peers, machine_code):
    """Ours and glibc's change the same bytes in the same way, at the places that it says."""
    loop = places.native_loop_or_why(peers, places.SUITE, "memory_copy")
    if loop is None:
        assert any("suite places is left out" in note for note in peers.notes)
        return
    size, noise = 700, random.Random(3)
    settings = places._settings(size)
    assert len({setting.instance.vmctx % places.PAGE for setting in settings}) == 3
    for setting in settings:
        content = noise.randbytes(len(setting.memory))
        pairs = places._pairs(peers, name, size, setting)
        for pair, (to, from_) in zip(pairs, places.PLACES, strict=True):
            results = []
            for call in pair:
                ctypes.memmove(setting.memory.base, content, len(content))
                assert loop(call, 1) > 0
                results.append(ctypes.string_at(setting.memory.base, len(content)))
            assert results[0] == results[1]
            changed = [i for i, byte in enumerate(results[0]) if byte != content[i]]
            assert size * 0.9 < len(changed) <= size
            distance = places._COPIES.get(name)
            first = to if distance is None else (from_ + distance) % places.PAGE
            assert (changed[0] - first) % places.PAGE < 16
            assert changed[-1] - changed[0] < size
            assert ctypes.addressof(pair.ours) % places.PAGE == places._CALL_AT
            assert ctypes.addressof(pair.glibc) % places.PAGE == places._CALL_AT
        setting.instance.close()


def test_places(peers, machine_code):
    told = []
    measured = places.measure(peers, True, told.append, "")
    if not measured:
        assert any("suite places is left out" in note for note in peers.notes)
        return
    assert [(case.name, case.size) for case in measured] == [
        (name, size) for name in (*places._COPIES, "init", "fill") for size in places.QUICK_SIZES
    ]
    assert len(told) == len(measured)
    for case in measured:
        assert list(case.figures) == [OURS, places.GLIBC]
        for figure in case.figures.values():
            for median, least, most in figure:
                assert 0 < least <= median <= most
    notes = [note for note in peers.notes if note.startswith("places: fill")]
    assert len(notes) == 2
    assert "below 1024 bytes at most" in notes[0]


def test_extremes():
    same = [(2.0, 2.0)] * len(places.PLACES)
    found = [
        ("copy", 64, [(5.0, 2.5), *same[1:]]),
        ("copy", 65, [*same[1:], (4.0, 1.9)]),
        ("copy", 1024, same),
        ("copy", 2048, [same[0], (3.0, 2.0), *same[2:]]),
    ]
    assert list(places.extremes(found)) == [
        "places: copy, below 1024 bytes at most +2.5 ns: 64 bytes at 0, 0",
        "places: copy, from 1024 bytes at most 1.50 of glibc: 2048 bytes at 0, 1",
    ]


def test_quick_run(tmp_path, capsys):
    path = tmp_path / "quick.json"
    words = ["bench", "calls", "arrays", "--quick", "--json", str(path)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "ours / it" in out
    assert str(path) in out
    value = json.loads(path.read_text())
    assert value["quick"] is True
    assert {case["suite"] for case in value["cases"]} == {"calls", "arrays"}
    assert value["about"]["numpy"] == np.__version__
    report = asm_libcalls.backend_report()
    for key in ("cpu", "cpu_features", "byte_ranges"):
        assert value["about"][key] == report.get(key, value["about"][key])
    assert cli.main(["bench", "--from", str(path)]) == 0
    assert capsys.readouterr().out.count("f64_ceil") == out.count("f64_ceil")


def test_only_some_cases(tmp_path, capsys):
    path = tmp_path / "some.json"
    words = ["bench", "arrays", "places", "--only", "fill", "--quick", "--json", str(path)]
    assert cli.main(words) == 0
    cases = {(case["suite"], case["name"]) for case in json.loads(path.read_text())["cases"]}
    assert cases <= {("places", "fill")}  # none where no machine code serves
    assert cli.main(["bench", "arrays", "--only", "udiv", "--quick", "--json", str(path)]) == 0
    names = {case["name"] for case in json.loads(path.read_text())["cases"]}
    assert names == {f"udiv u64 {layout}" for layout in ("contiguous", "by a scalar", "strided")}


def test_unknown_suite(capsys):
    assert cli.main(["bench", "nonsense"]) == 2
    assert "no suite is named 'nonsense'" in capsys.readouterr().err


def test_imports(peers, tmp_path):
    candidates = imports._candidates(peers, str(tmp_path))
    labels = [candidate.label for candidate in candidates]
    assert labels[0] == OURS
    assert {"asm_libcalls, no code cache", "asm_libcalls, fallback", "numpy"} < set(labels)
    shown = (OURS, "numpy", imports.BARE)
    chosen = [candidate for candidate in candidates if candidate.label in shown]
    time, *memory_case, process = imports._measure(chosen, rounds=1)
    assert (time.suite, time.name, time.rounds) == ("imports", "time", 1)
    assert list(time.figures) == [OURS, "numpy"]
    assert all(figure.nanoseconds.median > 0 for figure in time.figures.values())
    for case in memory_case:
        assert case.figures["numpy"].nanoseconds.median > 1 << 20
    assert (process.name, list(process.figures)) == ("process", list(shown))
    assert process.figures["numpy"].nanoseconds.median > time.figures["numpy"].nanoseconds.median


def test_memory_amounts_are_told_as_such():
    case = Timed("imports", "memory", 0, 1, {})
    assert results_module._amount(case, 3 << 20) == "3.0 MiB"
    other = Timed("imports", "time", 0, 1, {})
    assert [results_module._amount(other, x) for x in (0.123, 12.3, 4560, 7.8e6, 9e9)] == [
        "0.123 ns",
        "12.3 ns",
        "4.56 us",
        "7.8 ms",
        "9 s",
    ]


def a_run_of_everything():
    def case(suite, name, size=0, labels=("NumPy", "numba vectorize")):
        figures = {OURS: figure(10, 1), **{label: figure(25, 0.4) for label in labels}}
        return Timed(suite, name, size, 9, figures)

    sizes = (1, 1000, 10**6)
    return a_run(
        *(
            case("calls", name, labels=("math.ceil", "NumPy scalar"))
            for name in ("f64_ceil", "i64_ishl")
        ),
        case("native", "f64_ceil", labels=("glibc ceil",)),
        *(
            case("arrays", f"{name} {layout}", size)
            for name in ("ceil f32", "nearest f64", "udiv u64", "ishl i64")
            for layout in ("contiguous", "strided")
            for size in sizes
        ),
        *(
            case("memory", name, size, ("glibc",))
            for name in ("copy apart", "fill")
            for size in (16, 4096)
        ),
        case("imports", "time", labels=("numpy",)),
        case("imports", "memory", labels=("numpy",)),
    )


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is of the extra `bench`")
    run_of_all = a_run_of_everything()
    drawn = plot_benchmark.draw(run_of_all, tmp_path / "one")
    assert [path.stem for path in drawn] == list(plot_benchmark._PICTURES)
    for path in drawn:
        text = path.read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert len(text) < 80_000
        assert "<text" in text  # not outlines of letters
    again = plot_benchmark.draw(run_of_all, tmp_path / "two")
    assert [a.read_bytes() for a in drawn] == [b.read_bytes() for b in again]
    assert plot_benchmark.draw(a_run(), tmp_path / "nothing") == []


def test_pictures_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    a_run().write(tmp_path / "run.json")
    assert plot_benchmark.main([str(tmp_path / "run.json"), str(tmp_path)]) == 2
    assert "the extra `bench` has it" in capsys.readouterr().err


def test_what_cannot_be_drawn(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert plot_benchmark.main([str(tmp_path / "run.json"), str(tmp_path)]) == 2
    assert "is not a run of this benchmark" in capsys.readouterr().err
