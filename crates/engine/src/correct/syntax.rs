//! Statements as the engine's planner takes them. Each change is one that SQL itself allows.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, OrderBy, Query, SetExpr, SetOperator, Statement as Ast, TableFactor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::apart;
use super::clauses;
use super::using;
use super::views;
use super::windows;
use super::zones;
use crate::trees::{self, Visitor};

/// Rewrites a statement. The error says what of it is refused.
pub(super) fn adapt(statement: &mut Statement) -> Result<(), String> {
    match statement {
        Statement::Statement(statement) => match trees::visit(statement.as_mut(), &mut Adapt) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(refused) => Err(refused),
        },
        Statement::Explain(explain) => adapt(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Ok(()),
    }
}

fn flow(made: Result<(), String>) -> ControlFlow<String> {
    match made {
        Ok(()) => ControlFlow::Continue(()),
        Err(refused) => ControlFlow::Break(refused),
    }
}

struct Adapt;

impl Visitor for Adapt {
    fn before_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        flow(clauses::query(query))?;
        flow(windows::inline(query))?;
        if let Some(with) = &mut query.with
            && with.recursive
        {
            with.cte_tables.iter_mut().for_each(name_columns);
        }
        body(&mut query.body);
        ControlFlow::Continue(())
    }

    fn before_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        views::without(expr);
        flow(zones::cast(expr))
    }

    fn before_table(&mut self, factor: &mut TableFactor) -> ControlFlow<String> {
        flow(clauses::table(factor))?;
        // The last join has its brackets.
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            && let Some(last) = table_with_joins.joins.pop()
        {
            using::bracket(std::slice::from_mut(table_with_joins));
            table_with_joins.joins.push(last);
        }
        ControlFlow::Continue(())
    }
}

/// Says of a name that it is a merged column of a join. Returns whether a query with such a join has the name.
pub(super) fn qualify_merged(statement: &mut Statement, name: &str) -> bool {
    match statement {
        Statement::Statement(statement) => {
            let mut merged = Merged { name, any: false };
            let _ = trees::visit(statement.as_mut(), &mut merged);
            merged.any
        }
        Statement::Explain(explain) => qualify_merged(&mut explain.statement, name),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

struct Merged<'a> {
    name: &'a str,
    any: bool,
}

impl Merged<'_> {
    fn body(&mut self, set: &mut SetExpr, order_by: &mut Option<OrderBy>) {
        match set {
            SetExpr::Select(select) => self.any |= using::qualify_name(select, order_by, self.name),
            // The order of a set operation has only names of its columns.
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, &mut None);
                self.body(right, &mut None);
            }
            _ => {}
        }
    }
}

impl Visitor for Merged<'_> {
    fn before_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        self.body(&mut query.body, &mut query.order_by);
        ControlFlow::Continue(())
    }
}

fn body(set: &mut SetExpr) {
    match set {
        SetExpr::Select(select) => {
            apart::tell_apart(select);
            if let Some(condition) = &mut select.selection {
                using::qualify(condition, &select.from);
            }
            using::bracket(&mut select.from);
        }
        SetExpr::SetOperation { left, right, .. } => {
            body(left);
            body(right);
        }
        _ => {}
    }
}

/// `WITH RECURSIVE r(n) AS (first UNION next)`: the engine names the columns of `r` after the first part, and reads
/// the list of names too late. So the first part becomes `SELECT * FROM (first) AS r(n)`.
fn name_columns(table: &mut Cte) {
    let SetExpr::SetOperation { op: SetOperator::Union, left, .. } = table.query.body.as_mut() else {
        return;
    };
    if table.alias.columns.is_empty() {
        return;
    }
    let Some((mut select, first)) = template() else { return };
    let first = std::mem::replace(left, Box::new(first));
    if let SetExpr::Select(select) = &mut select
        && let Some(TableFactor::Derived { subquery, alias, .. }) =
            select.from.first_mut().map(|tables| &mut tables.relation)
    {
        *subquery.body = *first;
        *alias = Some(table.alias.clone());
    }
    **left = select;
}

/// `SELECT * FROM (VALUES (1)) AS x`, and its inner part once more.
fn template() -> Option<(SetExpr, SetExpr)> {
    let body = |text| match Parser::parse_sql(&GenericDialect {}, text).ok()?.pop()? {
        Ast::Query(query) => Some(*query.body),
        _ => None,
    };
    Some((body("SELECT * FROM (VALUES (1)) AS x")?, body("VALUES (1)")?))
}
