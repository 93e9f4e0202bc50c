"""Looks through syntax trees. Every pass does; sqlglot's own walk, four generators deep, took a quarter of planning.

The order is sqlglot's, level by level. What is found is a list: the tree may be changed while it is gone through.
"""

from __future__ import annotations

from typing import TypeVar

from sqlglot import exp

Node = TypeVar("Node", bound=exp.Expr)


def every(tree: exp.Expr, *kinds: type[Node]) -> list[Node]:
    """The nodes of some kinds in a tree, itself among them."""
    return [node for node in nodes(tree) if isinstance(node, kinds)]


def has(tree: exp.Expr, *kinds: type[exp.Expr]) -> bool:
    """Whether a node of some kinds stands in a tree."""
    return any(isinstance(node, kinds) for node in nodes(tree))


def nodes(tree: exp.Expr) -> list[exp.Expr]:
    """All nodes of a tree."""
    found = [tree]
    for node in found:  # grows while it is gone through
        for value in node.args.values():
            if isinstance(value, exp.Expr):
                found.append(value)
            elif isinstance(value, list):
                found += [one for one in value if isinstance(one, exp.Expr)]
    return found


def children(node: exp.Expr) -> list[exp.Expr]:
    """The nodes right below a node, in order."""
    found: list[exp.Expr] = []
    for value in node.args.values():
        if isinstance(value, exp.Expr):
            found.append(value)
        elif isinstance(value, list):
            found += [one for one in value if isinstance(one, exp.Expr)]
    return found


def copied_without(tree: Node, clause: str) -> Node:
    """A copy of a tree with nothing in place of one of its clauses: what is replaced need not be copied first."""
    taken = tree.args.get(clause)
    if taken is None:
        return tree.copy()
    tree.args[clause] = None
    try:
        return tree.copy()
    finally:
        tree.args[clause] = taken
