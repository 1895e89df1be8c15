"""Rows with nulls and SQL statements over them, the same ones again for the same seed.

The statements keep away from what docs/sql.md names: overflow, division of whole numbers, orders without a place for nulls,
correlation in the condition of a join.
"""

import collections
import random

HALF = 8

SQL_TYPES = {"int": "BIGINT", "double": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN", "time": "TIMESTAMP",
             "date": "DATE"}
# `u` is the number of the row and never null. `code` holds a number as a text.
COLUMNS = {"u": "int", "k": "int", "n": "int", "price": "double", "town": "text", "code": "text", "open": "bool",
           "since": "time"}
VALUES = {
    "k": [0, 1, 2, 3, 4], "n": [-1, 0, 2, 3, 25, 40], "price": [0.0, 0.5, 1.0, 2.25, -3.0],
    "town": ["Ulm", "Bonn", "", "ulm", "Bo_n", "Köln"], "code": ["0", "1", "2", "3", "25"], "open": [True, False],
    "since": ["2026-01-01T00:00:00Z", "2026-01-02T10:30:00Z", "2025-12-31T23:59:59.5Z", "2024-02-29T12:00:00Z"],
}
NULL_SHARE = 0.25
COMPARISONS = ["=", "<>", "<", "<=", ">", ">="]

Statement = collections.namedtuple("Statement", "sql kinds ordered")
# What stands in FROM: its columns as (SQL, kind), and the columns that together name one row.
Relation = collections.namedtuple("Relation", "sql columns keys")


class Generator:
    """Writes statements that both engines should understand."""

    def __init__(self, seed, names):
        self.random = random.Random(seed)
        self.names = names
        self.aliases = 0

    def chance(self, share):
        return self.random.random() < share

    def pick(self, *choices):
        return self.random.choice(choices)

    def alias(self):
        self.aliases += 1
        return f"a{self.aliases}"

    def rows(self):
        """Rows of one table. The last row of each half has no null, so that both halves have every column."""
        def row(number, full):
            nullable = {name: None if self.chance(NULL_SHARE) and not full else self.random.choice(values)
                        for name, values in VALUES.items()}
            return {"u": number} | nullable
        return [row(number, number % HALF == HALF - 1) for number in range(2 * HALF)]

    # Values

    def column(self, kind, scope):
        return self.random.choice([sql for sql, column_kind in scope if column_kind == kind])

    def constant(self, kind):
        if self.chance(0.1):
            return f"CAST(NULL AS {SQL_TYPES[kind]})"
        if kind == "int":
            return str(self.random.choice(VALUES["n"]))
        if kind == "double":
            return str(self.random.choice(VALUES["price"]))
        if kind == "text":
            return self.quoted(self.random.choice(VALUES["town"]))
        if kind == "bool":
            return self.pick("true", "false")
        moment = self.random.choice(VALUES["since"]).removesuffix("Z").replace("T", " ")
        return f"TIMESTAMP '{moment}'" if kind == "time" else f"DATE '{moment[:10]}'"

    def quoted(self, value):
        return f"'{value}'"

    def value(self, kind, scope, depth):
        if kind == "date":
            return self.constant(kind) if self.chance(0.2) else f"CAST({self.value('time', scope, depth - 1)} AS DATE)"
        if depth <= 0 or self.chance(0.4):
            return self.constant(kind) if self.chance(0.2) else self.column(kind, scope)
        if kind == "bool" and self.chance(0.5):
            return f"({self.condition(scope, depth - 1)})"
        if self.chance(0.5):
            return self.choice(kind, scope, depth - 1)
        return self.call(kind, scope, depth - 1)

    def choice(self, kind, scope, depth):
        """A value of any kind: CASE, COALESCE, NULLIF or a scalar subquery."""
        def one():
            return self.value(kind, scope, depth)
        form = self.random.randrange(5)
        if form == 0:
            otherwise = f" ELSE {one()}" if self.chance(0.6) else ""
            return f"CASE WHEN {self.condition(scope, depth)} THEN {one()}{otherwise} END"
        if form == 1:
            subject = self.pick("int", "text")
            return (f"CASE {self.value(subject, scope, depth)} WHEN {self.constant(subject)} THEN {one()} "
                    f"WHEN {self.value(subject, scope, 0)} THEN {one()} ELSE {one()} END")
        if form == 2:
            return f"COALESCE({one()}, {one()})"
        if form == 3:
            return f"NULLIF({one()}, {one()})"
        return self.scalar(kind, scope, depth)

    def call(self, kind, scope, depth):
        """A value by an operator or a function of its kind."""
        def one(of=kind):
            return self.value(of, scope, depth)
        calls = {
            "int": [lambda: f"({one()} {self.pick('+', '-')} {one()})", lambda: f"({one()} * 2)", lambda: f"({one()} % 3)",
                    lambda: f"abs({one()})", lambda: f"length({one('text')})", lambda: f"CAST({one('bool')} AS BIGINT)",
                    lambda: f"CAST({self.random.choice([sql for sql, _ in scope if sql.endswith('code')])} AS BIGINT)",
                    lambda: f"extract({self.pick('year', 'month', 'day', 'hour')} FROM {one('time')})"],
            "double": [lambda: f"({one()} {self.pick('+', '-', '*')} {one()})", lambda: f"({one('int')} / 4.0)",
                       lambda: f"{self.pick('abs', 'floor', 'ceil', 'round')}({one()})",
                       lambda: f"CAST({one('int')} AS DOUBLE)", lambda: f"({one('int')} + {one()})"],
            "text": [lambda: f"{self.pick('upper', 'lower', 'trim')}({one()})", lambda: f"({one()} || {one()})",
                     lambda: f"substr({one()}, 2, 2)", lambda: f"CAST({one('int')} AS VARCHAR)",
                     lambda: f"replace({one()}, 'n', 'm')", lambda: f"concat({one()}, '-', {one()})"],
            "bool": [lambda: f"({self.condition(scope, depth)})",
                     lambda: f"({one('int')} IS NOT DISTINCT FROM {one('int')})"],
            "time": [lambda: f"date_trunc('{self.pick('month', 'day', 'hour')}', {one()})",
                     lambda: f"({one()} {self.pick('+', '-')} INTERVAL '{self.pick('1 day', '2 months', '90 minutes')}')",
                     lambda: f"CAST({one('date')} AS TIMESTAMP)"],
        }
        return self.random.choice(calls[kind])()

    # Conditions

    def condition(self, scope, depth):
        simple = [self.compared, self.beside_quoted, self.between, self.listed, self.null_test, self.like, self.flag]
        deep = [self.combined, self.combined, self.in_subquery, self.exists, self.quantified]
        return self.random.choice(simple if depth <= 0 else simple + deep)(scope, depth)

    def compared(self, scope, depth):
        left, right = self.pick(("int", "int"), ("int", "double"), ("double", "double"), ("text", "text"),
                                        ("time", "time"), ("date", "date"), ("date", "time"), ("bool", "bool"))
        operators = COMPARISONS + ["IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
        return f"{self.value(left, scope, depth)} {self.pick(*operators)} {self.value(right, scope, depth)}"

    def beside_quoted(self, scope, _):
        kind = self.pick("int", "double", "time")
        text = self.random.choice(VALUES[{"int": "n", "double": "price", "time": "since"}[kind]])
        return f"{self.column(kind, scope)} {self.pick(*COMPARISONS)} {self.quoted(text)}"

    def between(self, scope, depth):
        kind = self.pick("int", "double", "text", "time")
        low, high = self.value(kind, scope, depth), self.value(kind, scope, depth)
        return f"{self.value(kind, scope, 0)} {self.pick('', 'NOT ')}BETWEEN {low} AND {high}"

    def listed(self, scope, depth):
        kind = self.pick("int", "double", "text", "time", "date")
        items = [self.constant(kind) for _ in range(self.random.randint(1, 4))]
        if self.chance(0.3):
            items.append(self.pick("NULL", self.value(kind, scope, 0)))
        return f"{self.value(kind, scope, depth)} {self.pick('', 'NOT ')}IN ({', '.join(items)})"

    def null_test(self, scope, depth):
        if self.chance(0.3):
            return f"{self.value('bool', scope, depth)} IS {self.pick('', 'NOT ')}{self.pick('TRUE', 'FALSE')}"
        return f"{self.value(self.pick('int', 'double', 'text', 'time'), scope, depth)} IS {self.pick('', 'NOT ')}NULL"

    def like(self, scope, depth):
        pattern = self.pick("'%n%'", "'_lm'", "'Bo%'", "''", "'%'", "'Bo!_n' ESCAPE '!'", "'U__'")
        return f"{self.value('text', scope, depth)} {self.pick('', 'NOT ')}{self.pick('LIKE', 'LIKE', 'ILIKE')} {pattern}"

    def flag(self, scope, _):
        return f"{self.pick('', 'NOT ')}{self.column('bool', scope)}"

    def combined(self, scope, depth):
        if self.chance(0.3):
            return f"NOT ({self.condition(scope, depth - 1)})"
        return f"({self.condition(scope, depth - 1)} {self.pick('AND', 'OR')} {self.condition(scope, depth - 1)})"

    # Subqueries

    def in_subquery(self, scope, depth):
        kind = self.pick("int", "int", "double", "text", "time")
        return f"{self.value(kind, scope, 0)} {self.pick('', 'NOT ')}IN ({self.column_query(kind, scope, depth - 1)})"

    def quantified(self, scope, depth):
        kind = self.pick("int", "double", "text")
        query = self.column_query(kind, scope, depth - 1)
        return f"{self.value(kind, scope, 0)} {self.pick(*COMPARISONS)} {self.pick('ANY', 'ALL')} ({query})"

    def exists(self, scope, depth):
        return f"{self.pick('', 'NOT ')}EXISTS ({self.column_query('int', scope, depth - 1)})"

    def column_query(self, kind, scope, depth):
        """A query of one column, often correlated."""
        inner = self.table()
        query = f"SELECT {self.pick('', '', 'DISTINCT ')}{self.value(kind, inner.columns, 0)} FROM {inner.sql}"
        if self.chance(0.8):
            return query + self.where(inner, scope, depth)
        other = self.table()
        operator = self.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT")
        return (f"{query}{self.where(inner, scope, depth)} {operator} "
                f"SELECT {self.column(kind, other.columns)} FROM {other.sql}{self.where(other, scope, depth)}")

    def where(self, inner, outer, depth):
        """A condition on the inner table, a correlation, both or nothing."""
        parts = [self.condition(inner.columns, depth)] if self.chance(0.5) else []
        if self.chance(0.5):
            kind = self.pick("int", "int", "text", "time")
            operator = self.pick("=", "=", *COMPARISONS)
            parts.append(f"{self.column(kind, inner.columns)} {operator} {self.column(kind, outer)}")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def scalar(self, kind, scope, depth):
        inner = self.table()
        value, where = self.column(kind, inner.columns), self.where(inner, scope, depth)
        if kind == "int" and self.chance(0.4):
            return f"(SELECT count({self.pick('*', value)}) FROM {inner.sql}{where})"
        if kind == "bool":
            return f"(SELECT bool_or({value}) FROM {inner.sql}{where})"
        return f"(SELECT {self.pick('max', 'min')}({value}) FROM {inner.sql}{where})"

    # Relations

    def table(self):
        alias = self.alias()
        columns = [(f"{alias}.{name}", kind) for name, kind in COLUMNS.items()]
        return Relation(f"{self.pick(*self.names)} {alias}", columns, [f"{alias}.u"])

    def derived(self):
        """A table through a subquery that filters it."""
        inner, alias = self.table(), self.alias()
        return Relation(f"(SELECT * FROM {inner.sql} WHERE {self.condition(inner.columns, 1)}) {alias}",
                        [(f"{alias}.{name}", kind) for name, kind in COLUMNS.items()], [f"{alias}.u"])

    def relation(self):
        left = self.table() if self.chance(0.7) else self.derived()
        if self.chance(0.5):
            return left
        right = self.table() if self.chance(0.7) else self.derived()
        columns, keys = left.columns + right.columns, left.keys + right.keys
        form = self.random.randrange(5)
        if form == 0:
            return Relation(f"{left.sql} CROSS JOIN {right.sql}", columns, keys)
        join = f"{left.sql} {self.pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN')} {right.sql}"
        if form <= 2:
            shared = self.pick(["k"], ["k"], ["n"], ["town"], ["open"], ["k", "n"])
            columns = columns + [(name, COLUMNS[name]) for name in shared for _ in range(3)]
            return Relation(f"{join} USING ({', '.join(shared)})", columns, keys)
        kind = self.pick("int", "int", "text", "time", "double")
        on = f"{self.column(kind, left.columns)} = {self.column(kind, right.columns)}"
        if self.chance(0.4):
            on += f" AND {self.compared(columns, 0)}"
        return Relation(f"{join} ON {on}", columns, keys)

    # Statements

    def statement(self):
        form = self.pick(self.plain, self.plain, self.grouped, self.grouped, self.whole, self.windowed, self.sets)
        return form()

    def filtered(self, depth=2):
        """A relation and the text from FROM to WHERE."""
        relation = self.relation()
        filtered = self.chance(0.7)
        where = f" WHERE {self.condition(relation.columns, depth)}" if filtered else ""
        return relation, f"FROM {relation.sql}{where}"

    def kinds(self, low=1, high=4):
        return [self.pick("int", "double", "text", "bool", "time", "date") for _ in range(self.random.randint(low, high))]

    def values(self, kinds, scope, depth):
        """Values of these kinds; no two have the same text."""
        values = []
        for kind in kinds:
            value = self.value(kind, scope, depth)
            while value in values:
                value = self.value(kind, scope, depth)
            values.append(value)
        return values

    def select(self, values):
        return ", ".join(f"{value} AS c{number}" for number, value in enumerate(values))

    def ordered(self, sql, kinds):
        """The statement, often with an order over all of its columns and a part of the rows."""
        if self.chance(0.5):
            return Statement(sql, kinds, False)
        places = [f"c{place}" for place in self.random.sample(range(len(kinds)), len(kinds))]
        sql += f" ORDER BY {self.order(places)}"
        if self.chance(0.6):
            sql += f" LIMIT {self.random.randint(0, 9)}"
            sql += f" OFFSET {self.random.randint(0, 5)}" if self.chance(0.5) else ""
        return Statement(sql, kinds, True)

    def order(self, values):
        return ", ".join(f"{v} {self.pick('ASC', 'DESC')} NULLS {self.pick('FIRST', 'LAST')}" for v in values)

    def plain(self):
        relation, source = self.filtered()
        kinds = self.kinds()
        values = self.values(kinds, relation.columns, 2)
        return self.ordered(f"SELECT {self.pick('', '', 'DISTINCT ')}{self.select(values)} {source}", kinds)

    def aggregate(self, scope):
        """An aggregate and its kind."""
        name = self.pick("count", "sum", "min", "max", "avg", "bool_and", "bool_or", "count(*)")
        if name == "count(*)":
            return f"count(*){self.only(scope)}", "int"
        kind = {"sum": ["int", "double"], "avg": ["int", "double"], "bool_and": ["bool"], "bool_or": ["bool"]}.get(
            name, ["int", "double", "text", "time"])
        kind = self.random.choice(kind)
        distinct = "DISTINCT " if name in ("count", "sum") and self.chance(0.3) else ""
        result = {"count": "int", "avg": "double"}.get(name, kind)
        return f"{name}({distinct}{self.value(kind, scope, 1)}){self.only(scope)}", result

    def only(self, scope):
        return f" FILTER (WHERE {self.condition(scope, 0)})" if self.chance(0.15) else ""

    def whole(self):
        relation, source = self.filtered()
        values, kinds = zip(*[self.aggregate(relation.columns) for _ in range(3)])
        having = f" HAVING count(*) {self.pick(*COMPARISONS)} {self.pick(0, 3)}" if self.chance(0.3) else ""
        return Statement(f"SELECT {self.select(values)} {source}{having}", kinds, False)

    def grouped(self):
        relation, source = self.filtered()
        plain, names = self.chance(0.5), {name for name, _ in relation.columns}
        by = {}
        for _ in range(self.random.randint(1, 2)):
            kind = self.pick("int", "text", "bool", "double", "time")
            key = self.column(kind, relation.columns)
            while plain and key in names:
                key = self.call(kind, relation.columns, 0)
            if plain and self.chance(0.1):
                key = self.scalar(kind, relation.columns, 0)
            by[key] = kind
        keys, groups = list(by), ", ".join(by)
        values, kinds = zip(*[*by.items(), self.aggregate(relation.columns), self.aggregate(relation.columns)])
        values, kinds = list(values), list(kinds)
        if not plain:
            groups = self.pick(f"ROLLUP ({groups})", f"CUBE ({groups})", f"GROUPING SETS (({groups}), ({keys[-1]}), ())")
            values, kinds = values + [f"grouping({keys[0]})"], kinds + ["int"]
        test, kind = self.aggregate(relation.columns)
        having = f" HAVING {test} {self.pick(*COMPARISONS)} {self.constant(kind)}" if self.chance(0.4) else ""
        return self.ordered(f"SELECT {self.select(values)} {source} GROUP BY {groups}{having}", kinds)

    def windowed(self):
        relation, source = self.filtered()
        scope = relation.columns
        part = f"PARTITION BY {self.column(self.pick('int', 'text', 'bool'), scope)} " if self.chance(0.6) else ""
        total = f"OVER ({part}ORDER BY {self.order(relation.keys)}"
        loose = f"OVER ({part}ORDER BY {self.order([self.column(self.pick('int', 'text', 'double'), scope)])})"
        rows = self.pick("", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
                         " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING")
        kind = self.pick("int", "double")
        value = self.value(kind, scope, 1)
        calls = [(f"row_number() {total})", "int"), (f"{self.pick('rank', 'dense_rank')}() {loose}", "int"),
                 (f"{self.pick('sum', 'min', 'max')}({value}) {loose}", kind),
                 (f"{self.pick('sum', 'avg', 'min', 'max')}({value}) {total}{rows})", "double"),
                 (f"{self.pick('bool_and', 'bool_or')}({self.condition(scope, 0)}) {total}{rows})", "bool"),
                 (f"count({value}) OVER ({part})", "int"), (f"{self.pick('lag', 'lead')}({value}) {total})", kind),
                 (f"{self.pick('first_value', 'last_value')}({value}) {total}{rows})", kind),
                 (f"ntile(3) {total})", "int")]
        values, kinds = zip(*[(key, "int") for key in relation.keys], *self.random.sample(calls, 2))
        return self.ordered(f"SELECT {self.select(values)} {source}", kinds)

    def sets(self):
        kinds = self.kinds(1, 2)
        def branch():
            relation, source = self.filtered(1)
            return f"SELECT {self.select(self.values(kinds, relation.columns, 1))} {source}"
        sql = branch()
        for _ in range(self.random.randint(1, 2)):
            sql = f"({sql}) {self.pick('UNION', 'EXCEPT', 'INTERSECT')}{self.pick('', ' ALL')} ({branch()})"
        return self.ordered(sql, kinds)
