"""Pass 2: every name in the tree is bound to a column of a table of the dataset.

Uses sqlglot's qualifier: identifiers are normalised as the input dialect does, stars, USING, positions and aliases
in GROUP BY are written out. Tables outside the dataset, or outside the grant, do not exist here.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp
from sqlglot.errors import OptimizeError, SchemaError, SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.qualify import qualify as sqlglot_qualify
from sqlglot.schema import MappingSchema

from insitu_privacy.dataset import ColumnType, Dataset, Table
from insitu_privacy.errors import AccessRefused, SqlRefused
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.plan import Scope

_SQL_TYPES: Mapping[ColumnType, str] = {
    "integer": "BIGINT",
    "decimal": "DOUBLE",
    "text": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "boolean": "BOOLEAN",
}


def qualify(tree: exp.Select, *, dialect: str, dataset: Dataset, scope: Scope) -> exp.Select:
    """The tree with each column as ``alias.column`` of a known table, all in lower case.

    Raises SqlRefused for unknown or ambiguous names, AccessRefused for tables and columns outside the grant.
    """
    _check_shape(tree)
    written = [_written_name(item) for item in tree.expressions]
    tree = normalize_identifiers(tree.copy(), dialect=dialect)
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
    names = _bind_tables(tree, dataset, scope)
    _check_named(tree, names)
    _bind_using(tree, names)
    _expand_group_by_all(tree)
    # names are in lower case by now; the input's dialect would fold them again, Oracle's to upper case
    schema = MappingSchema(_schema(dataset), normalize=False)
    try:
        bound = sqlglot_qualify(tree, schema=schema, quote_identifiers=False, validate_qualify_columns=False)
    except (OptimizeError, SchemaError) as error:
        raise SqlRefused("INSITU-SQL-SYNTAX", reason=_first_line(error)) from None
    assert isinstance(bound, exp.Select)
    _check_columns(bound, names, scope)
    _name_columns(bound, written)
    return bound


def _name_columns(tree: exp.Select, written: list[str | None]) -> None:
    renamed = {item.alias: name for item, name in zip(tree.expressions, written, strict=True) if name is not None}
    for node in tree.args["order"].find_all(exp.Column) if tree.args.get("order") else ():
        if not node.table and node.name in renamed:
            node.set("this", exp.to_identifier(renamed[node.name]))
    for item in tree.expressions:
        if item.alias in renamed:
            item.set("alias", exp.to_identifier(renamed[item.alias]))


def _bind_using(tree: exp.Select, names: Mapping[str, Table]) -> None:
    """A column named in USING is that of the first table that has it: with inner and left joins they are equal."""
    shared = {name.name for join in tree.args.get("joins") or () for name in join.args.get("using") or ()}
    for node in tree.find_all(exp.Column):
        if not node.table and node.name in shared:
            holder = next((alias for alias, table in names.items() if node.name in table.columns), None)
            if holder is not None:
                node.set("table", exp.to_identifier(holder))


def _written_name(item: exp.Expr) -> str | None:
    """The name of a column without an alias: the expression as it was written; None where it has a name."""
    return None if isinstance(item, (exp.Alias, exp.Column)) else item.sql().lower()


def _expand_group_by_all(tree: exp.Select) -> None:
    group = tree.args.get("group")
    if group is not None and group.args.get("all"):
        plain = [item.unalias().copy() for item in tree.expressions if not item.find(exp.AggFunc)]
        tree.set("group", exp.Group(expressions=plain) if plain else None)


def _first_line(error: SqlglotError) -> str:
    return str(error).split("\n")[0].split(". Line")[0].lower()


def _check_shape(tree: exp.Select) -> None:
    """Clauses that have no meaning here yet, refused before their names are looked up."""
    if tree.args.get("with_"):
        raise forbidden(tree.args["with_"], "WITH", "Write one SELECT over the tables of the dataset.")
    for item in tree.expressions:
        if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
            raise refusal("INSITU-SQL-ROW-OUTPUT", item)
    source = tree.args.get("from_")
    for item in [source.this if source else None, *(join.this for join in tree.args.get("joins") or ())]:
        if item is not None and not (isinstance(item, exp.Table) and isinstance(item.this, exp.Identifier)):
            name = "a derived table" if isinstance(item, exp.Subquery) else "a table function"
            raise forbidden(item, name, "Name tables of the dataset in FROM.")
    if source is None:
        raise refusal("INSITU-SQL-NO-PROTECTED", tree)


def _schema(dataset: Dataset) -> dict[str, object]:
    return {
        table.name: {name: _SQL_TYPES[column.type] for name, column in table.columns.items()}
        for table in dataset.tables.values()
    }


def _bind_tables(tree: exp.Select, dataset: Dataset, scope: Scope) -> dict[str, Table]:
    bound: dict[str, Table] = {}
    for node in tree.find_all(exp.Table):
        if node.args.get("db") or node.args.get("catalog") or node.name not in dataset.tables:
            known = ", ".join(sorted(_granted(dataset, scope)))
            raise refusal("INSITU-SQL-UNKNOWN-TABLE", node, name=node.sql(), known=known)
        if scope.tables is not None and node.name not in scope.tables:
            raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"table {node.name}")
        extra = [name for name, value in node.args.items() if value and name not in ("this", "alias")]
        if extra or (node.args.get("alias") and node.args["alias"].args.get("columns")):
            name = extra[0].upper().replace("_", " ") if extra else "a column list"
            raise forbidden(node, f"{name} on a table", "Name the table and, where needed, its alias.")
        alias = node.alias or node.name
        if alias in bound:
            raise forbidden(node, f"the name {alias} twice", "Give each table its own alias.")
        bound[alias] = dataset.tables[node.name]
    return bound


def _granted(dataset: Dataset, scope: Scope) -> set[str]:
    return set(dataset.tables) if scope.tables is None else set(dataset.tables) & set(scope.tables)


def _check_named(tree: exp.Select, names: Mapping[str, Table]) -> None:
    """Columns written with their table's name, before the qualifier meets them: its errors have no place."""
    for node in tree.find_all(exp.Column):
        table = names.get(node.table)
        if not node.table or isinstance(node.this, exp.Star):
            continue
        if table is None or node.name not in table.columns:
            known = sorted(table.columns if table else names)
            raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.sql(), known=", ".join(known))


def _check_columns(tree: exp.Select, names: Mapping[str, Table], scope: Scope) -> None:
    outputs = {item.alias for item in tree.expressions if item.alias}
    for node in list(tree.find_all(exp.Column)):
        if not node.table:
            if node.find_ancestor(exp.Order) and node.name in outputs:
                continue
            _refuse_unbound(node, names)
        table = names.get(node.table)
        if table is None or node.name not in table.columns:
            known = sorted(table.columns) if table else sorted(names)
            raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.name, known=", ".join(known))
        columns = scope.tables.get(table.name) if scope.tables is not None else None
        if columns is not None and node.name not in columns:
            raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"column {table.name}.{node.name}")


def _refuse_unbound(node: exp.Column, names: Mapping[str, Table]) -> None:
    holders = [alias for alias, table in names.items() if node.name in table.columns]
    if len(holders) > 1:
        raise refusal("INSITU-SQL-AMBIGUOUS-COLUMN", node, name=node.name)
    known = sorted({column for table in names.values() for column in table.columns})
    raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.name, known=", ".join(known))
