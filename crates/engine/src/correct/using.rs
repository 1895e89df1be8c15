//! The columns of `JOIN ... USING` and `NATURAL JOIN` (SQL:2016, 7.10): such a column has one value, that of the left
//! side, or of the right side where the left one has no row.
//!
//! The engine takes the column of the left side, which is NULL for rows of the right side alone. It finds out by the
//! joins of a plan which columns a bare name may mean. So a join here gives the merged columns as columns of their own,
//! and a mark above the join says that the bare name means them. The mark looks like a join to the engine's planner.
//! [`Unmark`] takes it away before anything else sees it. In WHERE the planner does not look for it, so there
//! [`qualify`] writes the qualifier of merged columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, NullEquality, Result, TableReference, plan_err};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannedRelation, PlannerResult, RawBinaryExpr, RelationPlanner, RelationPlannerContext,
    RelationPlanning,
};
use datafusion::logical_expr::{
    BinaryExpr, EmptyRelation, Expr, ExprSchemable, Join, JoinConstraint, JoinType, LogicalPlan,
    LogicalPlanBuilder, Operator, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{
    self, Ident, JoinConstraint as Constraint, JoinOperator, ObjectName, TableFactor, TableWithJoins,
};

use floe_schema::names::SYSTEM;

use crate::trees::{self, Plans, Visitor};

use super::walk;

/// The qualifier of merged columns. No table has it, and it sorts before all that do: of the columns that a bare `*`
/// may mean, the engine's planner takes the first.
const MERGED: &str = "";

/// Puts each join with USING, and all before it, in brackets, where [`MergedColumns`] plans it.
pub(super) fn bracket(from: &mut [TableWithJoins]) {
    for tables in from {
        if !tables.joins.iter().any(|join| merges(&join.join_operator).is_some()) {
            continue;
        }
        let mut open = Vec::new();
        for join in std::mem::take(&mut tables.joins) {
            let merges = merges(&join.join_operator).is_some();
            open.push(join);
            if merges {
                let relation = std::mem::replace(&mut tables.relation, nothing());
                let inner = TableWithJoins { relation, joins: std::mem::take(&mut open) };
                tables.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
            }
        }
        tables.joins = open;
    }
}

/// Writes the qualifier of merged columns before their names in a condition, but not in its subqueries.
pub(super) fn qualify(condition: &mut ast::Expr, from: &[TableWithJoins]) {
    let mut names = Vec::new();
    from.iter().for_each(|tables| merged_names(tables, &mut names));
    if !names.is_empty() {
        let _ = trees::visit(condition, &mut Qualify { names, depth: 0, any: false });
    }
}

/// Does the same for one name in a whole query, if a join of its tables may merge it: of a NATURAL join the text does
/// not say what it merges. Returns whether the query has the name.
pub(super) fn qualify_name(
    select: &mut ast::Select,
    order_by: &mut Option<ast::OrderBy>,
    name: &str,
) -> bool {
    let mut merged = Vec::new();
    select.from.iter().for_each(|tables| merged_names(tables, &mut merged));
    if !merged.iter().any(|merged| merged == name) && !select.from.iter().any(is_natural) {
        return false;
    }
    let mut qualify = Qualify { names: vec![name.to_owned()], depth: 0, any: false };
    let _ = trees::visit(&mut select.selection, &mut qualify);
    if !qualify.any {
        let _ = trees::visit(&mut select.projection, &mut qualify);
        let _ = trees::visit(&mut select.group_by, &mut qualify);
        let _ = trees::visit(&mut select.having, &mut qualify);
        let _ = trees::visit(&mut select.qualify, &mut qualify);
        let _ = trees::visit(order_by, &mut qualify);
    }
    qualify.any
}

/// Whether a table is joined by NATURAL, in its brackets, too.
fn is_natural(tables: &TableWithJoins) -> bool {
    let mut factors = std::iter::once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation));
    let natural = |join: &ast::Join| matches!(merges(&join.join_operator), Some((_, Constraint::Natural)));
    tables.joins.iter().any(natural)
        || factors.any(|factor| match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => is_natural(table_with_joins),
            _ => false,
        })
}

/// The names in the USING clauses of a table and its joins, and of those in its brackets.
fn merged_names(tables: &TableWithJoins, names: &mut Vec<String>) {
    let factors = std::iter::once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation));
    for factor in factors {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            merged_names(table_with_joins, names);
        }
    }
    for join in &tables.joins {
        if let Some((_, Constraint::Using(columns))) = merges(&join.join_operator) {
            names.extend(columns.iter().filter_map(|name| Some(folded(name.0.last()?.as_ident()?))));
        }
    }
}

/// A name as the engine reads it.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

struct Qualify {
    names: Vec<String>,
    /// Depth of subqueries. Their names have a scope of their own.
    depth: usize,
    /// It found a name.
    any: bool,
}

impl Visitor for Qualify {
    fn before_query(&mut self, _: &mut ast::Query) -> ControlFlow<String> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn after_query(&mut self, _: &mut ast::Query) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn before_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<String> {
        if self.depth == 0
            && let ast::Expr::Identifier(ident) = expr
            && self.names.contains(&folded(ident))
        {
            self.any = true;
            *expr = ast::Expr::CompoundIdentifier(vec![Ident::with_quote('"', MERGED), ident.clone()]);
        }
        ControlFlow::Continue(())
    }
}

fn nothing() -> TableFactor {
    TableFactor::TableFunction { expr: ast::Expr::value(ast::Value::Null), alias: None }
}

/// The type and the constraint of a join that merges columns.
fn merges(operator: &JoinOperator) -> Option<(JoinType, &Constraint)> {
    let (kind, constraint) = match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (JoinType::Inner, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (JoinType::Left, constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            (JoinType::Right, constraint)
        }
        JoinOperator::FullOuter(constraint) => (JoinType::Full, constraint),
        _ => return None,
    };
    matches!(constraint, Constraint::Using(_) | Constraint::Natural).then_some((kind, constraint))
}

/// Plans `||` of a merged column. The engine's planners ask for its type, to find out whether it is a list, before they
/// know which column the name means.
#[derive(Debug)]
pub(super) struct MergedTexts;

impl ExprPlanner for MergedTexts {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let known = expr.left.get_type(schema).is_ok() && expr.right.get_type(schema).is_ok();
        if known || expr.op != ast::BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let texts = BinaryExpr::new(expr.left.into(), Operator::StringConcat, expr.right.into());
        Ok(PlannerResult::Planned(Expr::BinaryExpr(texts)))
    }
}

/// Plans joins that merge columns.
#[derive(Debug)]
pub(super) struct MergedColumns;

impl RelationPlanner for MergedColumns {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::NestedJoin { mut table_with_joins, alias } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let last = table_with_joins.joins.last();
        if last.is_none_or(|join| merges(&join.join_operator).is_none()) {
            let relation = TableFactor::NestedJoin { table_with_joins, alias };
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let Some(join) = table_with_joins.joins.pop() else { return plan_err!("a join has two sides") };
        let left = match table_with_joins.joins.is_empty() {
            true => table_with_joins.relation,
            false => TableFactor::NestedJoin { table_with_joins, alias: None },
        };
        let left = context.plan(left)?;
        let right = context.plan(join.relation)?;
        let Some((kind, constraint)) = merges(&join.join_operator) else {
            return plan_err!("a join merges columns");
        };
        let names = match constraint {
            Constraint::Using(names) => {
                names.iter().map(|name| identifier(name, context)).collect::<Result<_>>()?
            }
            _ => common_names(&left, &right),
        };
        let plan = joined(left, right, kind, &names)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn identifier(name: &ObjectName, context: &dyn RelationPlannerContext) -> Result<String> {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) => Ok(context.normalize_ident(ident.clone())),
            None => plan_err!("USING takes names of columns, not '{name}'"),
        },
        _ => plan_err!("USING takes names of columns, not '{name}'"),
    }
}

/// The names that both sides have, in the order of the left side. The system columns are none of them: all tables have
/// them, and they say where a row was written. PostgreSQL, too, joins by no system column.
fn common_names(left: &LogicalPlan, right: &LogicalPlan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for field in left.schema().fields() {
        let name = field.name();
        let common = right.schema().fields().iter().any(|field| field.name() == name);
        if common && !SYSTEM.contains(&name.as_str()) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Joins two sides by columns of these names.
fn joined(left: LogicalPlan, right: LogicalPlan, kind: JoinType, names: &[String]) -> Result<LogicalPlan> {
    let keys = |plan: &LogicalPlan| -> Result<Vec<Column>> {
        let meanings = plan.using_columns()?;
        let column = |name| {
            let schemas: &[&[&DFSchema]] = &[&[plan.schema()]];
            Column::from_name(name).normalize_with_schemas_and_ambiguity_check(schemas, &meanings)
        };
        names.iter().map(column).collect()
    };
    let (left_keys, right_keys) = (keys(&left)?, keys(&right)?);
    let meanings = [left.using_columns()?, right.using_columns()?].concat();
    let all = [left.schema().columns(), right.schema().columns()].concat();
    let join = LogicalPlanBuilder::from(left);
    let join = match names.is_empty() {
        true => join.join_on(right, kind, [lit(true)])?,
        false => join.join_detailed(
            right,
            kind,
            (left_keys.clone(), right_keys.clone()),
            None,
            NullEquality::NullEqualsNothing,
        )?,
    };
    let mut groups: Vec<Vec<Column>> = left_keys
        .iter()
        .zip(&right_keys)
        .map(|pair| {
            let mut group: Vec<Column> =
                all.iter().filter(|column| means(column, pair, &meanings)).cloned().collect();
            group.dedup();
            group
        })
        .collect();
    let mut plan = join.build()?;
    if !names.is_empty() {
        plan = merged(plan, kind, names, &left_keys, &right_keys, &mut groups)?;
    }
    Ok(mark(plan, &groups))
}

/// Whether a bare name that means one column of a pair may also mean this one.
fn means(
    column: &Column,
    (left, right): (&Column, &Column),
    meanings: &[std::collections::HashSet<Column>],
) -> bool {
    let with = |key: &Column| {
        column == key
            || column.name == key.name && meanings.iter().any(|set| set.contains(key) && set.contains(column))
    };
    with(left) || with(right)
}

/// Puts the merged columns before all others.
fn merged(
    join: LogicalPlan,
    kind: JoinType,
    names: &[String],
    left: &[Column],
    right: &[Column],
    groups: &mut [Vec<Column>],
) -> Result<LogicalPlan> {
    let mut columns = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let value = match kind {
            JoinType::Right => Expr::Column(right[index].clone()),
            JoinType::Inner | JoinType::Left => Expr::Column(left[index].clone()),
            _ => coalesce(vec![Expr::Column(left[index].clone()), Expr::Column(right[index].clone())]),
        };
        columns.push(value.alias_qualified(Some(TableReference::bare(MERGED)), name));
        let merged = Column::new(Some(TableReference::bare(MERGED)), name);
        // A merged column of an earlier join is part of this one.
        groups[index].retain(|column| *column != merged);
        groups[index].insert(0, merged);
    }
    let replaced = |column: &Column| is_merged(column) && names.contains(&column.name);
    let others = join.schema().columns().into_iter().filter(|column| !replaced(column));
    columns.extend(others.map(Expr::Column));
    LogicalPlanBuilder::from(join).project(columns)?.build()
}

fn is_merged(column: &Column) -> bool {
    column.relation.as_ref().is_some_and(|relation| relation.table() == MERGED)
}

/// Marks a plan: a bare name that all columns of a group share means the first of them.
fn mark(plan: LogicalPlan, groups: &[Vec<Column>]) -> LogicalPlan {
    let mut on = Vec::new();
    for group in groups {
        for column in group.iter().skip(1) {
            on.push((Expr::Column(group[0].clone()), Expr::Column(column.clone())));
        }
    }
    if on.is_empty() {
        return plan;
    }
    let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
    let schema = plan.schema().clone();
    LogicalPlan::Join(Join {
        left: Arc::new(plan),
        right: Arc::new(LogicalPlan::EmptyRelation(nothing)),
        on,
        filter: None,
        join_type: JoinType::LeftSemi,
        join_constraint: JoinConstraint::Using,
        schema,
        null_equality: NullEquality::NullEqualsNothing,
        null_aware: false,
    })
}

/// Takes the marks away.
#[derive(Debug)]
pub(super) struct Unmark;

impl AnalyzerRule for Unmark {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let marks = |node: &LogicalPlan| matches!(node, LogicalPlan::Join(join) if is_mark(join));
        if !walk::nodes(&plan, &|node| Ok(marks(node)))? {
            return Ok(plan);
        }
        let mut unmarked = |node| match node {
            LogicalPlan::Join(join) if is_mark(&join) => {
                Ok(Transformed::yes(Arc::unwrap_or_clone(join.left)))
            }
            node => Ok(Transformed::no(node)),
        };
        walk::settled(plan.rewrite_plans_up(&mut unmarked)?)
    }

    fn name(&self) -> &'static str {
        "unmark"
    }
}

/// Whether a join is a mark. No other join with USING has a side without columns.
fn is_mark(join: &Join) -> bool {
    join.join_constraint == JoinConstraint::Using && join.right.schema().fields().is_empty()
}
