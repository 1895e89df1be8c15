//! Columns of a query that the engine would give one name, which it refuses: a column twice, or beside a cast of it.
//! The later one gets a number, as the columns of a result do.

use crate::trees::{self, Visitor};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem};

/// Gives a name to each column without one that would have the name of another.
pub(super) fn tell_apart(select: &mut Select) {
    let mut taken: BTreeSet<String> = select.projection.iter().filter_map(alias).collect();
    let others: BTreeSet<String> = select.projection.iter().filter_map(unnamed).collect();
    // A column as it is keeps its name beside casts of it.
    for with_casts in [false, true] {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let (name, has_casts) = named(expr);
            if has_casts == with_casts && !taken.insert(name.clone()) {
                let alias = free(&name, &others, &mut taken);
                *item =
                    SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
            }
        }
    }
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    }
}

fn unnamed(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(named(expr).0),
        _ => None,
    }
}

/// The first name with a number that nobody has.
fn free(name: &str, others: &BTreeSet<String>, taken: &mut BTreeSet<String>) -> String {
    // A qualified name is that of its column.
    let column = match name.rsplit_once('.') {
        Some((_, column)) if column.chars().all(|c| c.is_alphanumeric() || c == '_') => column,
        _ => name,
    };
    let names = (1_u64..).map(|number| format!("{column}_{number}"));
    let mut free = names.skip_while(|name| taken.contains(name) || others.contains(name));
    let found = free.next().unwrap_or_default();
    taken.insert(found.clone());
    found
}

/// What the engine makes a name of: the expression without its casts. And whether there are some.
fn named(expr: &Expr) -> (String, bool) {
    let (mut bare, mut casts) = (expr.clone(), Casts(false));
    let _ = trees::visit(&mut bare, &mut casts);
    (bare.to_string(), casts.0)
}

/// Takes casts and brackets out of an expression. Notes whether there were casts.
struct Casts(bool);

impl Visitor for Casts {
    fn after_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let nothing = || Expr::Identifier(Ident::new(""));
        loop {
            match expr {
                Expr::Cast { expr: inner, .. } | Expr::AtTimeZone { timestamp: inner, .. } => {
                    self.0 = true;
                    *expr = std::mem::replace(inner, nothing());
                }
                Expr::TypedString(typed) => {
                    self.0 = true;
                    *expr = Expr::Value(typed.value.clone());
                }
                Expr::Nested(inner) => *expr = std::mem::replace(inner, nothing()),
                _ => break,
            }
        }
        match expr {
            Expr::Identifier(name) => *name = Ident::new(folded(name)),
            Expr::CompoundIdentifier(names) => {
                names.iter_mut().for_each(|name| *name = Ident::new(folded(name)));
            }
            Expr::Function(call) => {
                for part in &mut call.name.0 {
                    if let Some(name) = part.as_ident().map(folded) {
                        *part = datafusion::sql::sqlparser::ast::ObjectNamePart::Identifier(Ident::new(name));
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A name as the engine has it: without quotes in lower case.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement};
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn check(query: &str, expected: &str) {
        let parsed = Parser::parse_sql(&GenericDialect {}, query).unwrap().remove(0);
        let Statement::Query(mut query) = parsed else { panic!("it is a query") };
        let SetExpr::Select(select) = query.body.as_mut() else { panic!("it is a SELECT") };
        tell_apart(select);
        assert_eq!(select.to_string(), expected);
    }

    #[test]
    fn the_later_column_gets_a_number() {
        check("SELECT id, id, b FROM t", r#"SELECT id, id AS "id_1", b FROM t"#);
        check(
            "SELECT id, ID, \"id\", id_1 FROM t",
            r#"SELECT id, ID AS "id_2", "id" AS "id_3", id_1 FROM t"#,
        );
        check("SELECT t.id, t.id FROM t", r#"SELECT t.id, t.id AS "id_1" FROM t"#);
        check("SELECT \"ID\", id FROM t", "SELECT \"ID\", id FROM t");
        check("SELECT count(*), COUNT(*) FROM t", r#"SELECT count(*), COUNT(*) AS "count(*)_1" FROM t"#);
        check("SELECT a.id, b.id FROM a, b", "SELECT a.id, b.id FROM a, b");
        check("SELECT id AS x, x FROM t", r#"SELECT id AS x, x AS "x_1" FROM t"#);
        check("SELECT *, id FROM t", "SELECT *, id FROM t");
    }

    #[test]
    fn a_column_keeps_its_name_beside_its_casts() {
        check("SELECT id::text, id FROM t", r#"SELECT id::TEXT AS "id_1", id FROM t"#);
        check("SELECT t, t AT TIME ZONE 'UTC' FROM v", r#"SELECT t, t AT TIME ZONE 'UTC' AS "t_1" FROM v"#);
        check("SELECT id::text, 1 FROM t", "SELECT id::TEXT, 1 FROM t");
        check(
            "SELECT sum(a), sum(CAST((a) AS int)), 1, 1.0 FROM t",
            r#"SELECT sum(a), sum(CAST((a) AS INT)) AS "sum(a)_1", 1, 1.0 FROM t"#,
        );
        check(
            "SELECT DATE '2026-01-01', TIMESTAMP '2026-01-01'",
            r#"SELECT DATE '2026-01-01', TIMESTAMP '2026-01-01' AS "'2026-01-01'_1""#,
        );
    }
}
