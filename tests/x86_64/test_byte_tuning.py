"""The CPUs whose ranges of bytes take wide vectors and string instructions, and the variable."""

import pytest

from asm_libcalls.x86_64 import cpu
from asm_libcalls.x86_64.byte_tuning import LONG_FROM, ByteTuning

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
AVX2 = frozenset({"avx2", "erms"})
AVX512 = AVX2 | {"avx512vl", "avx512bw"}
MODERN = AVX512 | {"fsrm"}
WIDE, ICE_LAKE = {cpu.WIDE_MOVES}, {cpu.ICE_LAKE}
MODELS = {
    "Skylake server": (INTEL, 6, 0x55, AVX512, set()),
    "Alder Lake, without AVX-512": (INTEL, 6, 0x97, AVX2 | {"fsrm"}, set()),
    "Ice Lake": (INTEL, 6, 0x6A, MODERN, WIDE | ICE_LAKE),
    "Emerald Rapids": (INTEL, 6, 0xCF, MODERN, WIDE | ICE_LAKE),
    "Granite Rapids, by the model of a Rocket Lake": (INTEL, 6, 0xA7, MODERN, WIDE | ICE_LAKE),
    "Zen 3": (AMD, 0x19, 0x01, AVX2 | {"fsrm"}, set()),
    "Zen 4": (AMD, 0x19, 0x11, MODERN, set()),
    "Zen 5 server": (AMD, 0x1A, 0x02, MODERN, WIDE),
    "Zen 5 desktop": (AMD, 0x1A, 0x44, MODERN, WIDE),
    "Zen 5 mobile": (AMD, 0x1A, 0x24, MODERN, set()),
    "another maker": ("CentaurHauls", 6, 0x6A, MODERN, set()),
}


@pytest.mark.parametrize("which", MODELS)
def test_model(which):
    *model, features, expected = MODELS[which]
    assert cpu._byte_tunings(*model, features) == expected


def test_this_cpu_is_decoded_with_its_tunings(machine_code, monkeypatch):
    this = machine_code.cpu
    detected = this.features - cpu.TUNINGS
    expected = cpu._byte_tunings(this.vendor, this.family, this.model, detected)
    monkeypatch.delenv(cpu.TUNING_VARIABLE, raising=False)
    from asm_libcalls.x86_64 import code_cache

    assert cpu.detect(code_cache.load("cpu")).features - {cpu.SLOW_DIVIDE_64} == (
        detected | expected
    )


CHOICES = {
    "nothing": (frozenset(), (16, 16, None, None)),
    "strings": (frozenset({"erms"}), (16, 16, LONG_FROM, LONG_FROM)),
    "AVX2": (AVX2, (32, 32, None, 1 << 20)),
    "AVX2 without strings": (AVX2 - {"erms"}, (32, 32, None, None)),
    "AVX-512": (AVX512, (32, 32, None, 1 << 20)),
    "wide": (AVX512 | WIDE, (32, 64, 32 << 10, 1 << 20)),
    "wide without strings": (AVX512 - {"erms"} | WIDE, (32, 64, None, None)),
    "Ice Lake, wide": (AVX512 | WIDE | ICE_LAKE, (32, 64, 8 << 10, 16 << 10)),
    "Ice Lake": (AVX2 | ICE_LAKE, (32, 32, 8 << 10, 16 << 10)),
    "Ice Lake asked of a CPU without AVX2": ({"erms"} | ICE_LAKE, (16, 16, LONG_FROM, LONG_FROM)),
    "wide asked of a CPU without AVX-512": (AVX2 | WIDE, (32, 32, None, 1 << 20)),
    "Ice Lake without strings": (AVX512 - {"erms"} | ICE_LAKE, (32, 32, None, None)),
}


@pytest.mark.parametrize("which", CHOICES)
def test_choice(which):
    features, (width, wide, rep_movsb_from, rep_stosb_from) = CHOICES[which]
    tuning = ByteTuning(frozenset(features))
    assert (tuning.width, tuning.wide) == (width, wide)
    assert (tuning.rep_movsb_from, tuning.rep_stosb_from) == (rep_movsb_from, rep_stosb_from)
    text = str(tuning)
    assert text.startswith(f"{width}-byte vectors")
    assert tuning.ice_lake == (features >= ICE_LAKE | {"erms"})
    assert tuning.wide_above == (0 if width == wide else 64 if tuning.ice_lake else 256)
    assert (f"64-byte vectors above {tuning.wide_above} bytes" in text) == (wide == 64)
    assert ("rep movsb" in text, "rep stosb" in text) == (
        rep_movsb_from is not None,
        rep_stosb_from is not None,
    )


def test_tunings_that_are_asked_for():
    some = frozenset({"avx2", cpu.WIDE_MOVES})
    assert cpu.tuned(some, "") == cpu.tuned(some, " , ") == some
    assert cpu.tuned(some, "-wide_moves") == {"avx2"}
    assert cpu.tuned(some, " +ice_lake , -wide_moves,") == {"avx2", "ice_lake"}
    assert cpu.tuned(some, "+wide_moves,-slow_divide_64") == some


@pytest.mark.parametrize("bad", ["wide_moves", "+avx2", "+", "-", "off", "+wide_moves -x", "+wide"])
def test_other_words_are_refused(bad):
    with pytest.raises(ValueError, match="ASM_LIBCALLS_TUNING must be names after"):
        cpu.tuned(frozenset(), bad)


@pytest.mark.parametrize("asked", ["", "+wide_moves", "-wide_moves", "+ice_lake,-wide_moves"])
def test_the_report_says_which_serves(asked, child, machine_code, tmp_path):
    done = child(
        """
        from asm_libcalls import Instance, Memory, backend_report, memory_copy, memory_fill
        report = backend_report()
        assert report["x86_64"] == "loaded", report
        memory = Memory(4)
        view = memoryview(memory)
        view[:100_000] = bytes(range(250)) * 400
        memory_copy(Instance([memory]), 0, 110_001, 0, 3, 99_000)
        assert view[110_001:209_001] == view[3:99_003]
        print(report["cpu_features"], report["byte_ranges"], sep="|")
        """,
        variables={"ASM_LIBCALLS_TUNING": asked, "ASM_LIBCALLS_CACHE": str(tmp_path)},
    )
    features, text = done.stdout.strip().split("|")
    expected = cpu.tuned(machine_code.cpu.features, asked)
    assert frozenset(features.split()) == expected
    assert text == str(ByteTuning(expected))


def test_a_bad_variable_is_an_error_of_the_import(child, machine_code):
    done = child(
        "import asm_libcalls; asm_libcalls.f64_ceil(1.5)",
        variables={"ASM_LIBCALLS_TUNING": "fast"},
        exit_status=1,
    )
    assert "ValueError: ASM_LIBCALLS_TUNING must be names after + or -" in done.stderr
