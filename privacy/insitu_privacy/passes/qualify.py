"""Pass 2: every name in the tree is bound to a column of a table of the dataset.

Uses sqlglot's qualifier: identifiers are normalised as the input dialect does, stars, USING, positions and aliases
in GROUP BY are written out. Tables outside the dataset, or outside the grant, do not exist here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import count

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import OptimizeError, SchemaError, SqlglotError
from sqlglot.optimizer.qualify import qualify as sqlglot_qualify
from sqlglot.optimizer.scope import Scope as SqlScope
from sqlglot.optimizer.scope import traverse_scope
from sqlglot.schema import MappingSchema

from insitu_privacy.dataset import ColumnType, Dataset
from insitu_privacy.errors import AccessRefused, SqlRefused
from insitu_privacy.passes.expansion import check_expansion
from insitu_privacy.passes.nodes import every
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.plan import NODE_ID, Scope

_SQL_TYPES: Mapping[ColumnType, str] = {
    "integer": "BIGINT",
    "decimal": "DOUBLE",
    "text": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "boolean": "BOOLEAN",
}


def qualify(tree: exp.Query, *, dialect: str, dataset: Dataset, scope: Scope) -> exp.Select:
    """The tree, changed in place, with each column as ``alias.column`` of a known source, all in lower case.

    Raises SqlRefused for unknown or ambiguous names, AccessRefused for tables and columns outside the grant.
    """
    _check_shape(tree, dataset)
    written = [_written_name(item) for item in tree.expressions] if not _has_star(tree) else []
    if isinstance(tree, exp.SetOperation):
        tree = _selected_from(tree)
    _fold_names(tree, dialect)
    selects = every(tree, exp.Select)
    _name_derived(tree, selects)
    for select in selects:
        _expand_group_by_all(select)
    parts = traverse_scope(tree)
    _check_tables(parts, dataset, scope)
    check_expansion(parts)
    for part in parts:
        names = _columns_of_sources(part, dataset)
        _mark_node_id(part, names, dataset)
        _check_named(part, names)
        _bind_using(part, names)
    # names are in lower case by now; the input's dialect would fold them again, Oracle's to upper case
    schema = MappingSchema(_schema(tree, dataset), normalize=False)
    try:
        bound = sqlglot_qualify(tree, schema=schema, quote_identifiers=False, validate_qualify_columns=False)
    except (OptimizeError, SchemaError) as error:
        raise SqlRefused("INSITU-SQL-SYNTAX", reason=_first_line(error)) from None
    assert isinstance(bound, exp.Select)
    for part in traverse_scope(bound):
        _check_columns(part, dataset, scope)
    _place_columns(bound)
    if written:
        _name_columns(bound, written)
    return bound


def _fold_names(tree: exp.Query, dialect: str) -> None:
    """Names as the dialect folds them, then in lower case."""
    identifiers, reader = every(tree, exp.Identifier), Dialect.get_or_raise(dialect)
    for identifier in identifiers:
        reader.normalize_identifier(identifier)
    for identifier in identifiers:
        if identifier.name != identifier.name.lower():
            identifier.set("this", identifier.name.lower())


def _mark_node_id(part: SqlScope, names: Mapping[str, Collection[str] | None], dataset: Dataset) -> None:
    """``node_id`` over persons' tables that have no such column is the node that a row is at."""
    tables = [item.name for item in _sources(part.expression) if isinstance(item, exp.Table)]
    protected = any(name in dataset.tables and not dataset.tables[name].public for name in tables)
    if not protected or any(columns is None or NODE_ID in columns for columns in names.values()):
        return
    for node in list(part.columns):
        if node.name == NODE_ID and (not node.table or node.table in names):
            marked = exp.Placeholder(this=NODE_ID)
            marked.meta.update(node.this.meta)
            node.replace(exp.alias_(marked, NODE_ID) if node.parent is part.expression else marked)


def _has_star(tree: exp.Query) -> bool:
    """Whether the answer's columns are not written one by one."""
    return not isinstance(tree, exp.Select) or any(item.is_star for item in tree.expressions)


def _selected_from(tree: exp.SetOperation) -> exp.Select:
    """A set operation as a SELECT of all its rows, with its ORDER BY and LIMIT."""
    inner = tree
    select = exp.Select(expressions=[exp.Star()])
    for clause in ("with_", "order", "limit", "offset"):
        select.set(clause, inner.args.get(clause))
        inner.set(clause, None)
    alias = exp.TableAlias(this=exp.to_identifier("united"))
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=alias)))
    return select


def _place_columns(tree: exp.Select) -> None:
    """Forgets where a table's name stands in columns that were written without it: errors underline what is there."""
    for node in every(tree, exp.Column):
        table = node.args.get("table")
        if table is not None and table.meta.get("end", -1) + 2 != node.this.meta.get("start"):
            table.meta.clear()


def _name_columns(tree: exp.Select, written: list[str | None]) -> None:
    renamed = {item.alias: name for item, name in zip(tree.expressions, written, strict=True) if name is not None}
    for node in tree.args["order"].find_all(exp.Column) if tree.args.get("order") else ():
        if not node.table and node.name in renamed:
            node.set("this", exp.to_identifier(renamed[node.name]))
    for item in tree.expressions:
        if item.alias in renamed:
            item.set("alias", exp.to_identifier(renamed[item.alias]))


def _bind_using(part: SqlScope, names: Mapping[str, Collection[str] | None]) -> None:
    """A column named in USING is that of the first source that has it: with inner and left joins they are equal."""
    joins = part.expression.args.get("joins") or ()
    shared = {name.name for join in joins for name in join.args.get("using") or ()}
    for node in part.columns if shared else ():
        if not node.table and node.name in shared:
            holder = next((alias for alias, known in names.items() if known is None or node.name in known), None)
            if holder is not None:
                node.set("table", exp.to_identifier(holder))


def _written_name(item: exp.Expr) -> str | None:
    """The name of a column: a quoted alias as it stands, without an alias the expression; None where it has another."""
    alias = item.args.get("alias") if isinstance(item, exp.Alias) else None
    if isinstance(alias, exp.Identifier) and alias.quoted:
        return alias.name
    return None if isinstance(item, (exp.Alias, exp.Column)) else item.sql().lower()


def _name_derived(tree: exp.Query, selects: list[exp.Select]) -> None:
    """Gives a name to each derived table that was written without one."""
    items = [item for select in selects for item in _sources(select)]
    nameless = [item for item in items if isinstance(item, exp.Subquery) and not item.alias]
    taken = {node.name for node in every(tree, exp.Identifier)} if nameless else set()
    names = (name for number in count() if (name := f"derived{number}") not in taken)
    for item in nameless:
        item.set("alias", exp.TableAlias(this=exp.to_identifier(next(names))))


def _expand_group_by_all(tree: exp.Select) -> None:
    group = tree.args.get("group")
    if group is not None and group.args.get("all"):
        plain = [item.unalias().copy() for item in tree.expressions if not item.find(exp.AggFunc)]
        tree.set("group", exp.Group(expressions=plain) if plain else None)


def _first_line(error: SqlglotError) -> str:
    return str(error).split("\n")[0].split(". Line")[0].lower()


def _check_shape(tree: exp.Query, dataset: Dataset) -> None:
    """What has no meaning here, refused before names are looked up."""
    named = {one.alias.lower() for one in (tree.args["with_"].expressions if tree.args.get("with_") else ())}
    named |= {table.name for table in dataset.tables.values() if table.public}
    rows = any(isinstance(item, exp.Table) and item.name.lower() not in named for item in _sources(tree))
    for item in tree.expressions if isinstance(tree, exp.Select) and rows else ():
        if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
            raise refusal("INSITU-SQL-ROW-OUTPUT", item)
    for select in every(tree, exp.Select):
        with_ = select.args.get("with_")
        if with_ is not None and with_.args.get("recursive"):
            raise forbidden(with_, "WITH RECURSIVE", "Write the steps as queries of their own.")
        source = select.args.get("from_")
        for item in [source.this if source else None, *(join.this for join in select.args.get("joins") or ())]:
            plain = isinstance(item, exp.Table) and isinstance(item.this, exp.Identifier)
            if item is not None and not plain and not isinstance(item, exp.Subquery):
                raise forbidden(item, "a table function", "Name tables of the dataset, or write a SELECT.")
    if isinstance(tree, exp.Select) and tree.args.get("from_") is None and tree.find(exp.Subquery) is None:
        raise refusal("INSITU-SQL-NO-PROTECTED", tree)


def _schema(tree: exp.Query, dataset: Dataset) -> dict[str, object]:
    """The tables that a query names; of one that names none, all: the qualifier takes an empty schema for none."""
    named = {node.name for node in every(tree, exp.Table)} & dataset.tables.keys()
    return {
        table.name: {name: _SQL_TYPES[column.type] for name, column in table.columns.items()}
        for table in dataset.tables.values()
        if table.name in named or not named
    }


def _check_tables(parts: list[SqlScope], dataset: Dataset, scope: Scope) -> None:
    """Every table is one of the dataset that the grant names, or a WITH around it; names of sources differ."""
    for part in parts:
        seen: set[str] = set()
        for item in _sources(part.expression):
            if isinstance(item, exp.Table):
                _check_table(item, part, dataset, scope)
            alias = item.alias or item.name
            if alias in seen:
                raise forbidden(item, f"the name {alias} twice", "Give each table its own alias.")
            seen.add(alias)


def _sources(query: exp.Expr) -> list[exp.Expr]:
    """What a SELECT reads, in order."""
    source = query.args.get("from_")
    return [*([source.this] if source else []), *(join.this for join in query.args.get("joins") or ())]


def _check_table(node: exp.Table, part: SqlScope, dataset: Dataset, scope: Scope) -> None:
    plain = not node.args.get("db") and not node.args.get("catalog")
    if not (plain and node.name in part.cte_sources):
        if not plain or node.name not in dataset.tables:
            known = ", ".join(sorted(_granted(dataset, scope)))
            raise refusal("INSITU-SQL-UNKNOWN-TABLE", node, name=node.sql(), known=known)
        if scope.tables is not None and node.name not in scope.tables:
            raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"table {node.name}")
    extra = [name for name, value in node.args.items() if value and name not in ("this", "alias")]
    if extra or (node.args.get("alias") and node.args["alias"].args.get("columns")):
        name = extra[0].upper().replace("_", " ") if extra else "a column list"
        raise forbidden(node, f"{name} on a table", "Name the table and, where needed, its alias.")


def _granted(dataset: Dataset, scope: Scope) -> set[str]:
    return set(dataset.tables) if scope.tables is None else set(dataset.tables) & set(scope.tables)


def _columns_of_sources(part: SqlScope, dataset: Dataset) -> dict[str, Collection[str] | None]:
    """By alias, the columns of each source of a SELECT; None where only the qualifier can tell."""
    found: dict[str, Collection[str] | None] = {}
    for item in _sources(part.expression):
        alias = item.alias or item.name
        inside = part.sources.get(alias)
        if isinstance(item, exp.Table) and not isinstance(inside, SqlScope):
            found[alias] = dataset.tables[item.name].columns
        else:
            found[alias] = _output_names(inside.expression if isinstance(inside, SqlScope) else item.this)
    return found


def _output_names(query: exp.Expr) -> Collection[str] | None:
    named = query.named_selects if isinstance(query, exp.Query) else []
    return None if not named or "*" in named else named


def _check_named(part: SqlScope, names: Mapping[str, Collection[str] | None]) -> None:
    """Columns written with their table's name, before the qualifier meets them: its errors have no place."""
    outer = {alias for scope in _around(part) for alias in scope.sources}
    for node in part.columns:
        if not node.table or isinstance(node.this, exp.Star):
            continue
        if node.table not in names and node.table in outer:
            continue
        columns = names.get(node.table)
        if node.table not in names or (columns is not None and node.name not in columns):
            known = sorted(columns) if columns else sorted(names)
            raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.sql(), known=", ".join(known))


def _around(part: SqlScope) -> Iterator[SqlScope]:
    while part.parent is not None:
        part = part.parent
        yield part


def _check_columns(part: SqlScope, dataset: Dataset, scope: Scope) -> None:
    names = _columns_of_sources(part, dataset)
    tables = {item.alias or item.name: item.name for item in _sources(part.expression) if isinstance(item, exp.Table)}
    outer = {alias for around in _around(part) for alias in around.sources}
    outputs = {item.alias for item in part.expression.expressions if item.alias}
    for node in list(part.columns):
        if not node.table:
            if node.find_ancestor(exp.Order) and node.name in outputs:
                continue
            _refuse_unbound(node, names)
        if node.table not in names and node.table in outer:
            continue
        columns = names.get(node.table)
        if node.table not in names or (columns is not None and node.name not in columns):
            known = sorted(columns) if columns else sorted(names)
            raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.name, known=", ".join(known))
        granted = scope.tables.get(tables[node.table]) if scope.tables is not None and node.table in tables else None
        if granted is not None and node.name not in granted and tables[node.table] not in part.cte_sources:
            raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"column {tables[node.table]}.{node.name}")


def _refuse_unbound(node: exp.Column, names: Mapping[str, Collection[str] | None]) -> None:
    holders = [alias for alias, columns in names.items() if columns and node.name in columns]
    if len(holders) > 1:
        raise refusal("INSITU-SQL-AMBIGUOUS-COLUMN", node, name=node.name)
    known = sorted({column for columns in names.values() for column in columns or ()})
    raise refusal("INSITU-SQL-UNKNOWN-COLUMN", node, name=node.name, known=", ".join(known))
