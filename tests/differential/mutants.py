"""Small changes of the package's source, one at a time: does the machine of random fits notice each?

    python -m tests.differential.mutants causalrisk/inference/sandwich.py --most 40

changes comparisons, signs, operators and constants of a module, fits random cases with each change, and prints those
that no case noticed. A change is noticed where a case that agrees with the reference does no longer, or where nothing
can be imported or ended in time.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import importlib.util
import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 60  # of the processor that a change may take before it is called endless
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


def number_of(source: str) -> int:
    return sum(changed(node) is not None for node in computing(ast.parse(source)))


def mutant(source: str, number: int) -> tuple[ast.Module, str]:
    """The tree with change `number`, and what it says."""
    tree = ast.parse(source)
    nodes = [node for node in computing(tree) if changed(node) is not None]
    chosen = nodes[number]
    new = ast.copy_location(changed(chosen), chosen)  # type: ignore[type-var]
    said = f"line {chosen.lineno}: {ast.unparse(chosen)}  ->  {ast.unparse(new)}"  # type: ignore[attr-defined]

    class Change(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is chosen else self.generic_visit(node)

    return ast.fix_missing_locations(Change().visit(tree)), said


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


def noticed(name: str, path: Path, tree: ast.Module, seeds: list[int]) -> str:
    """Fit cases with a module changed: the first that does not agree, or nothing."""
    sys.meta_path.insert(0, Finder(name, path, tree))
    return next((f"{seed} {kind}" for seed, kind in verdicts(seeds) if kind != "agreed"), "")


def verdicts(seeds: list[int]) -> Iterator[tuple[int, str]]:
    from tests.differential import cases
    from tests.differential.machine import check

    for seed in seeds:
        yield seed, check(cases.draw(seed)).kind


def agreeing(count: int, estimator: str | None) -> str:
    """Seeds of the first cases, of an estimator, that agree without a change."""
    from tests.differential import cases

    of_it = (seed for seed in itertools.count() if estimator in (None, cases.draw(seed).estimator))
    seeds = list(itertools.islice(of_it, count))
    return " ".join(str(seed) for seed, kind in verdicts(seeds) if kind == "agreed")


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=40, help="changes of a module, drawn at random")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--estimator", help="that of the cases; by default any")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for needed in ("numpy", "pandas", "scipy.special", "statsmodels.api", "patsy", "scipy.optimize"):
        importlib.import_module(needed)
    seeds = [int(seed) for seed in apart(agreeing, options.cases, options.estimator).split()]
    print(f"{len(seeds)} cases", flush=True)
    survivors = 0
    for module in options.modules:
        source, name = module.read_text("utf-8"), ".".join(module.with_suffix("").parts)
        numbers = list(range(number_of(source)))
        drawn = sorted(random.Random(options.seed).sample(numbers, min(options.most, len(numbers))))
        kept = []
        for number in drawn:
            tree, said = mutant(source, number)
            if not apart(noticed, name, module, tree, seeds):
                kept.append(said)
                print(f"  {module} {said}", flush=True)
        survivors += len(kept)
        print(f"{module}: {len(drawn)} of {len(numbers)} changes, {len(drawn) - len(kept)} noticed", flush=True)
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
