"""``tools/mutation_test.py``: its changes, and that tests notice one with an effect."""

import ast
import textwrap

import mutation_test

SOURCE = '''
"""Words."""
TYPE_CHECKING = False
__all__ = ["f"]

def f(a: int, b: int) -> int:
    """Words."""
    if a + b > 7 and not b:
        raise ValueError(f"{a + 1}")
    return b
'''


def test_every_kind_of_change():
    found = [mutant.change for mutant in mutation_test.mutants(SOURCE)]
    assert [change for change in found if "\n" not in change] == found
    assert "a + b > 7 -> a + b >= 7" in found
    assert "a + b > 7 -> a + b <= 7" in found
    assert "a + b -> a - b" in found
    assert "7 -> 8" in found
    assert "not b -> b" in found
    assert "a + b > 7 and (not b) -> a + b > 7 or not b" in found
    assert "return b -> pass" in found
    assert any(change.startswith("raise ValueError") for change in found)
    assert not any("Words" in change or "False" in change for change in found)
    assert len(found) == 9  # and the condition the other way round
    for mutant in mutation_test.mutants(SOURCE):
        assert ast.dump(mutant.tree) != ast.dump(ast.parse(SOURCE))
        compile(mutant.tree, "mutant", "exec")


def test_every_module_is_there_and_so_are_its_tests():
    for name, tests in mutation_test.MODULES.items():
        assert (mutation_test.ROOT / name).is_file()
        for word in tests.split():
            if word.endswith(".py"):
                assert (mutation_test.ROOT / "tests" / word).is_file()


PROGRAM = f"""
    import sys
    from pathlib import Path
    sys.path.append({str(mutation_test.ROOT / "tools")!r})
    import mutation_test

    mutation_test.ROOT = Path.cwd()
    Path("signs.py").write_text("def sign(a): return (a > 0) - (a < 0)")
    Path("tests").mkdir()
    Path("tests/test_signs.py").write_text(TEST)
    mutation_test.MODULES["signs.py"] = "test_signs.py"
    print(mutation_test.main(["signs.py", "--only", "1,2"]))
"""


def test_what_the_tests_notice_is_killed_and_the_rest_survives(child):
    test = "from signs import sign\ndef test_it(): assert sign(5) == 1 and sign(0) == 0"
    done = child(f"TEST = {test!r}" + textwrap.dedent(PROGRAM))
    assert "mutant 1, line 1: (a > 0) - (a < 0) -> (a > 0) + (a < 0)" in done.stdout
    assert "mutant 2" not in done.stdout
    assert done.stdout.endswith("2 mutants, 1 survived: 50.0 % were noticed\n0\n")


def test_tests_that_fail_anyway_are_an_error(child):
    test = "def test_it(): assert False"
    done = child(f"TEST = {test!r}" + textwrap.dedent(PROGRAM), exit_status=1)
    assert "signs.py: the tests fail without a change" in done.stderr
