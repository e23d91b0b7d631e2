"""Small changes of the package's source, one at a time: does the machine of random fits notice each?

    python -m tests.differential.mutants causalrisk/inference/covariance.py --most 40 --tests tests/inference

changes comparisons, signs, operators and constants of a module, fits random cases with each change, and prints those
that no case noticed and then, with `--tests`, no test. A change is noticed where a case that agrees with the reference
does no longer, or where nothing can be imported or ended in time. Those that cannot be noticed stand with the reason in
`tests/differential/survivors.py`; the exit code is 1 where there are others.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import importlib.util
import io
import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from tests.differential.survivors import EXPLAINED

SECONDS, OF_TESTS = 60, 600  # of the processor that cases or tests may take before a change is called endless
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.USub: ast.UAdd,
}  # fmt: skip


def changed(node: ast.AST) -> ast.AST | None:
    """Return what a node becomes, or None where it stays."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp)) and type(node.op) in SWAPS:
        fields = dict(ast.iter_fields(node)) | {"op": SWAPS[type(node.op)]()}
        return type(node)(**fields)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        return ast.Compare(node.left, [SWAPS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return ast.Constant(not node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return ast.Constant(node.value + 1)
    return None


def computing(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of what computes: no annotations, no messages, no strings put together, no decorators."""
    skipped = (ast.JoinedStr, ast.Raise, ast.Assert)
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, skipped):
                yield child
                yield from computing(child)


class Change(NamedTuple):
    """A change of a module: where, the line as it is, and what of it becomes what."""

    line: int
    text: str
    edit: str

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same where lines are added above."""
        return self.text, self.edit


def nodes_of(tree: ast.Module) -> list[ast.AST]:
    """Nodes that can be changed."""
    return [node for node in computing(tree) if changed(node) is not None]


def change_of(source: str, node: ast.AST) -> Change:
    line = node.lineno  # type: ignore[attr-defined]
    edit = f"{ast.unparse(node)}  ->  {ast.unparse(changed(node))}"  # type: ignore[arg-type]
    return Change(line, source.splitlines()[line - 1].strip(), edit)


def changes(source: str) -> list[Change]:
    """Return all changes of a source."""
    return [change_of(source, node) for node in nodes_of(ast.parse(source))]


def mutant(source: str, number: int) -> tuple[ast.Module, Change]:
    """The tree with change `number`, and that change."""
    tree = ast.parse(source)
    chosen = nodes_of(tree)[number]
    new = ast.copy_location(changed(chosen), chosen)  # type: ignore[type-var]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is chosen else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(tree)), change_of(source, chosen)


class Finder:
    """Finds one module changed, all others as they are."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name: str, path=None, target=None):
        if name != self.name:
            return None
        loader = importlib.machinery.SourceFileLoader(name, str(self.path))
        loader.get_code = lambda _: compile(self.tree, str(self.path), "exec")  # type: ignore[method-assign]
        return importlib.util.spec_from_file_location(name, str(self.path), loader=loader)


def noticed(name: str, path: Path, tree: ast.Module, of: tuple[str, list[int]], tests: list[str]) -> str:
    """Fit cases with a module changed, then run tests: the first that does not agree, or nothing."""
    sys.meta_path.insert(0, Finder(name, path, tree))
    found = next((f"{seed} {verdict}" for seed, verdict in verdicts(*of) if verdict != "agreed"), "")
    return found or (failing(tests) if tests else "")


def failing(tests: list[str]) -> str:
    """Run tests until one fails; say so, or nothing."""
    import pytest

    signal.setitimer(signal.ITIMER_PROF, OF_TESTS)
    with redirect_stdout(io.StringIO()):
        return "a test" if pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]) else ""


def verdicts(kind: str, seeds: list[int]) -> Iterator[tuple[int, str]]:
    from tests.differential import cases
    from tests.differential.machine import check

    for seed in seeds:
        yield seed, check(cases.DRAWS[kind](seed)).kind


def agreeing(kind: str, count: int, estimator: str | None) -> str:
    """Seeds of the first cases of a kind, of an estimator, that agree without a change."""
    from tests.differential import cases

    of_it = (seed for seed in itertools.count() if estimator in (None, cases.DRAWS[kind](seed).estimator))
    seeds = list(itertools.islice(of_it, count))
    return " ".join(str(seed) for seed, verdict in verdicts(kind, seeds) if verdict == "agreed")


def apart(work: Callable[..., str], *args) -> str:
    """Return what work says in a forked process, which has imported everything but the package."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            said = work(*args)
        except BaseException as error:
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    status = os.waitpid(child, 0)[1]
    return answer if not status else "endless"


def surviving(module: Path, options: argparse.Namespace, seeds: list[int]) -> int:
    """Try changes of a module, print those that nothing noticed, and return how many have no explanation."""
    source, name = module.read_text("utf-8"), ".".join(module.with_suffix("").parts)
    numbers = list(range(len(changes(source))))
    drawn = sorted(random.Random(options.seed).sample(numbers, min(options.most, len(numbers))))
    explained = EXPLAINED.get(module.as_posix(), {})
    kept = []
    for tree, change in (mutant(source, number) for number in drawn):
        if not apart(noticed, name, module, tree, (options.kind, seeds), options.tests):
            kept.append(change)
            print(f"  {module} line {change.line}: {change.text}\n    {change.edit}", flush=True)
            print(f"    {explained.get(change.key, 'NOT EXPLAINED')}", flush=True)
    print(f"{module}: {len(drawn)} of {len(numbers)} changes, {len(drawn) - len(kept)} noticed", flush=True)
    return sum(change.key not in explained for change in kept)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=40, help="changes of a module, drawn at random")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument(
        "--kind", choices=("plain", "crossed", "scan", "survey"), default="plain", help="that of the cases"
    )
    parser.add_argument("--estimator", help="that of the cases; by default any")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", nargs="+", default=[], help="tests for changes that no case noticed")
    options = parser.parse_args(arguments)
    for needed in ("numpy", "pandas", "scipy.special", "statsmodels.api", "patsy", "scipy.optimize"):
        importlib.import_module(needed)
    seeds = [int(seed) for seed in apart(agreeing, options.kind, options.cases, options.estimator).split()]
    print(f"{len(seeds)} cases", flush=True)
    survivors = sum(surviving(module, options, seeds) for module in options.modules)
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
