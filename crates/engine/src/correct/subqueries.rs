//! Subqueries as conditions: `IN`, `NOT IN`, `EXISTS`, and comparisons with `ANY` and `ALL`.
//!
//! SQL knows three answers, and the engine's joins know two. So each condition is written with parts that have two
//! answers each, before the engine sees it (SQL:2016, 8.4 `in` predicate, 8.9 quantified comparison):
//!
//! ```text
//! x IN S       true if a row of S equals x; unknown if S has a NULL, or if x is NULL and S has a row; else false
//! x > ANY S    true if x > min(S); false if S is empty; unknown if S has a NULL; else x > min(S)
//! x <= ALL S   NOT (x > ANY S)
//! ```
//!
//! An aggregate without GROUP BY always gives a row, so `EXISTS` over it is true. The engine makes a join of it, in
//! which the row is missing.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, Spans, not_impl_err};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, FetchType, Filter, LogicalPlan, LogicalPlanBuilder, Operator,
    SkipType, Subquery, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::{Plans, Tree};

use super::correlated::{Place, is_source};
use super::names::Names;
use super::opaque::opaque;
use super::walk;

/// Gives conditions with subqueries their three answers.
#[derive(Debug)]
pub(super) struct ThreeAnswers;

impl AnalyzerRule for ThreeAnswers {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !walk::hold(&plan, &moves)? {
            return Ok(plan);
        }
        let names = Names::default();
        walk::settled(plan.rewrite_plans_up(&mut |node| names.node(node))?)
    }

    fn name(&self) -> &'static str {
        "three_answers"
    }
}

/// A scalar subquery without a row is NULL (SQL:2016, 7.15). The engine takes it for never NULL where its column is,
/// and answers `IS NULL` and `coalesce` without a look.
#[derive(Debug)]
pub(super) struct MaybeNoRow;

impl AnalyzerRule for MaybeNoRow {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &|expr| matches!(expr, Expr::ScalarSubquery(_)), &|expr, _| match expr {
            Expr::ScalarSubquery(subquery) if !may_be_null(&subquery.subquery) => {
                let column = Column::from(subquery.subquery.schema().qualified_field(0));
                let (relation, name) = (column.relation.clone(), column.name.clone());
                let value = opaque(Expr::Column(column)).alias_qualified(relation, name);
                let plan = LogicalPlanBuilder::new_from_arc(subquery.subquery).project([value])?.build()?;
                Ok(Transformed::yes(Expr::ScalarSubquery(as_subquery(plan))))
            }
            other => Ok(Transformed::no(other)),
        })
    }

    fn name(&self) -> &'static str {
        "maybe_no_row"
    }
}

/// Whether the engine knows that a scalar subquery may be NULL, or it never is.
fn may_be_null(plan: &LogicalPlan) -> bool {
    one_row(plan) || plan.schema().field(0).is_nullable()
}

fn is_condition(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

/// Whether an expression must move to a projection. The engine joins correlated subqueries in filters and projections
/// alone.
fn moves(expr: &Expr) -> bool {
    is_condition(expr)
        || matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

impl Names {
    /// The rows of a subquery, with its column under a name that nothing else has.
    fn rows(&self, word: &str, subquery: &Subquery) -> Result<(LogicalPlan, Expr)> {
        let name = self.next(word);
        let (input, column) = match subquery.subquery.as_ref() {
            // A column beside a cast of it has the name of the cast.
            LogicalPlan::Projection(rows) if rows.expr.len() == 1 => {
                (rows.input.clone(), rows.expr[0].clone().unalias())
            }
            rows => (subquery.subquery.clone(), Expr::Column(Column::from(rows.schema().qualified_field(0)))),
        };
        let rows = LogicalPlanBuilder::new_from_arc(input).project([column.alias(&name)])?.build()?;
        Ok((rows, Expr::Column(Column::new_unqualified(name))))
    }

    fn node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let joins =
            matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::Join(_));
        let wanted = if joins { is_condition } else { moves };
        let mut any = false;
        node.look_at_expressions(&mut |expr| {
            any |= expr.holds(&mut |part| wanted(part))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !any {
            return Ok(Transformed::no(node));
        }
        match node {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(_) | LogicalPlan::Join(_) => self.in_place(node),
            node => self.beside(node),
        }
    }

    /// A filter keeps only rows for which its predicate is true. So each of its parts may confuse false and unknown.
    fn filter(&self, filter: Filter) -> Result<Transformed<LogicalPlan>> {
        let schema = filter.input.schema().clone();
        let mut parts = Vec::new();
        for part in split_conjunction_owned(filter.predicate) {
            self.conjunct(part, &schema, &mut parts)?;
        }
        let predicate = conjunction(parts).unwrap_or_else(|| lit(true));
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
    }

    fn conjunct(&self, part: Expr, schema: &DFSchema, parts: &mut Vec<Expr>) -> Result<()> {
        match part {
            Expr::Not(inner) if is_condition(&inner) => match *inner {
                Expr::Exists(exists) => {
                    parts.push(existence(exists.subquery, !exists.negated)?);
                }
                Expr::InSubquery(inside) => {
                    let inside = InSubquery { negated: !inside.negated, ..inside };
                    self.conjunct(Expr::InSubquery(inside), schema, parts)?;
                }
                other => parts.push(self.value(Expr::Not(other.into()), schema, Decorrelated::Join)?),
            },
            Expr::Exists(exists) => parts.push(existence(exists.subquery, exists.negated)?),
            Expr::InSubquery(inside) if one_row(&inside.subquery.subquery) => {
                parts.push(self.value(Expr::InSubquery(inside), schema, Decorrelated::Join)?);
            }
            Expr::InSubquery(inside)
                if !inside.negated && !is_source(&inside.subquery.subquery, Place::Condition) =>
            {
                let [found, ..] = self.inside(inside, schema, Decorrelated::Join)?;
                parts.extend(found);
            }
            Expr::InSubquery(inside) if !inside.negated => {
                let correlated = !inside.subquery.outer_ref_columns.is_empty();
                let subquery = match correlated {
                    true => as_subquery(self.rows("in", &inside.subquery)?.0),
                    false => inside.subquery,
                };
                parts.push(Expr::InSubquery(InSubquery { subquery, ..inside }));
            }
            Expr::InSubquery(inside) => {
                let [found, unknown, empty] = self.inside(inside, schema, Decorrelated::Join)?;
                parts
                    .extend([found, unknown, empty].into_iter().flatten().map(|part| Expr::Not(part.into())));
            }
            other => parts.push(self.value(other, schema, Decorrelated::Join)?),
        }
        Ok(())
    }

    /// A node in which the engine can join subqueries.
    fn in_place(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = walk::inputs(&node)?;
        let names = NamePreserver::new(&node);
        node.rewrite_expressions(&mut |expr| {
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(self.value(expr, &schema, Decorrelated::Scalar)?)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    }

    /// A node in which the engine cannot join subqueries. They move to a projection below it.
    fn beside(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let [input] = node.inputs()[..] else { return self.in_place(node) };
        let (columns, before) = (input.schema().columns(), node.schema().columns());
        let schema = input.schema().clone();
        let mut values: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
        let names = NamePreserver::new(&node);
        let node = node.rewrite_expressions(&mut |expr| {
            let name = names.save(&expr);
            let moved = expr.rewrite_down(&mut |part| {
                if !moves(&part) {
                    return Ok(Transformed::no(part));
                }
                let column = self.next("value");
                values.push(self.value(part, &schema, Decorrelated::Scalar)?.alias(&column));
                let column = Expr::Column(Column::new_unqualified(column));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            })?;
            Ok(moved.update_data(|expr| name.restore(expr)))
        })?;
        let mut values = Some(values);
        let node = node.data.map_children(|input| {
            let values = values.take().unwrap_or_default();
            Ok(Transformed::yes(LogicalPlanBuilder::from(input).project(values)?.build()?))
        })?;
        let node = node.data.recompute_schema()?;
        if node.schema().fields().len() == before.len() {
            return Ok(Transformed::yes(node));
        }
        let columns = before.into_iter().map(Expr::Column);
        Ok(Transformed::yes(LogicalPlanBuilder::from(node).project(columns)?.build()?))
    }

    /// An expression in which every condition is a value.
    fn value(&self, expr: Expr, schema: &DFSchema, how: Decorrelated) -> Result<Expr> {
        expr.rewrite_up(&mut |part| match part {
            Expr::Exists(Exists { subquery, negated }) => {
                let exists = how.exists(subquery)?;
                Ok(Transformed::yes(if negated { Expr::Not(exists.into()) } else { exists }))
            }
            Expr::InSubquery(inside) => Ok(Transformed::yes(self.in_value(inside, schema, how)?)),
            Expr::SetComparison(comparison) => Ok(Transformed::yes(self.quantified(comparison, schema)?)),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn in_value(&self, inside: InSubquery, schema: &DFSchema, how: Decorrelated) -> Result<Expr> {
        let negated = inside.negated;
        if one_row(&inside.subquery.subquery) {
            let operator = if negated { Operator::NotEq } else { Operator::Eq };
            return Ok(binary(*inside.expr, operator, Expr::ScalarSubquery(inside.subquery)));
        }
        let [found, unknown, empty] = self.inside(inside, schema, how)?;
        let mut case = when(found.unwrap_or_else(|| lit(false)), lit(!negated));
        for unknown in [unknown, empty].into_iter().flatten() {
            case = case.when(unknown, lit(ScalarValue::Boolean(None)));
        }
        case.otherwise(lit(negated))
    }

    /// The three parts of `x IN S`, each with two answers: a row of S equals x; a row of S is NULL; x is NULL and S has
    /// a row. A part that cannot be true is absent.
    fn inside(&self, inside: InSubquery, schema: &DFSchema, how: Decorrelated) -> Result<[Option<Expr>; 3]> {
        let InSubquery { expr, subquery, .. } = inside;
        refuse_hidden_columns(&expr, &subquery)?;
        let (rows, value) = self.rows("in", &subquery)?;
        let nullable = rows.schema().field(0).is_nullable();
        let with = |predicate: Expr| -> Result<Subquery> {
            let plan = LogicalPlanBuilder::from(rows.clone()).filter(predicate)?.build()?;
            Ok(as_subquery(plan))
        };
        let outer = outer(expr.as_ref().clone(), schema)?;
        let found = how.exists(with(value.clone().eq(outer))?)?;
        let unknown = match nullable {
            true => Some(how.exists(with(value.is_null())?)?),
            false => None,
        };
        let empty = match expr.nullable(schema)? {
            true => Some(expr.is_null().and(how.exists(as_subquery(rows))?)),
            false => None,
        };
        Ok([Some(found), unknown, empty])
    }

    /// A comparison with ANY or ALL, by the least and the greatest row of the subquery.
    fn quantified(&self, comparison: SetComparison, schema: &DFSchema) -> Result<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        let inside = |negated| InSubquery { expr: expr.clone(), subquery: subquery.clone(), negated };
        match (op, &quantifier) {
            (Operator::Eq, SetQuantifier::Any) => {
                return self.in_value(inside(false), schema, Decorrelated::Scalar);
            }
            (Operator::NotEq, SetQuantifier::All) => {
                return self.in_value(inside(true), schema, Decorrelated::Scalar);
            }
            _ if one_row(&subquery.subquery) => {
                // Correlated, another aggregate above it would lose the row that it always gives.
                return Ok(binary(*expr, op, Expr::ScalarSubquery(subquery)));
            }
            _ => {}
        }
        let (op, all) = match quantifier {
            SetQuantifier::Any => (op, false),
            SetQuantifier::All => match op.negate() {
                Some(op) => (op, true),
                None => return not_impl_err!("{op} ALL (subquery)"),
            },
        };
        let (rows, value) = self.rows("any", &subquery)?;
        let total = |aggregate: Expr| -> Result<Expr> {
            let aggregate = aggregate.alias(self.next("total"));
            let plan =
                LogicalPlanBuilder::from(rows.clone()).aggregate(Vec::<Expr>::new(), [aggregate])?.build()?;
            Ok(Expr::ScalarSubquery(as_subquery(plan)))
        };
        let x = expr.as_ref().clone();
        let holds = match op {
            Operator::Gt | Operator::GtEq => binary(x, op, total(min(value.clone()))?),
            Operator::Lt | Operator::LtEq => binary(x, op, total(max(value.clone()))?),
            Operator::NotEq => {
                let least = binary(x.clone(), op, total(min(value.clone()))?);
                least.or(binary(x, op, total(max(value.clone()))?))
            }
            op => return not_impl_err!("{op} with ANY or ALL (subquery)"),
        };
        let (rows, known) = (total(count(lit(1)))?, total(count(value))?);
        let any = when(holds.clone(), lit(true))
            .when(rows.clone().eq(lit(0_i64)), lit(false))
            .when(known.lt(rows), lit(ScalarValue::Boolean(None)))
            .otherwise(holds)?;
        Ok(if all { Expr::Not(any.into()) } else { any })
    }
}

/// How the engine gets rid of a correlated `EXISTS`.
#[derive(Clone, Copy)]
enum Decorrelated {
    /// In a filter, by a join that marks rows.
    Join,
    /// Elsewhere, by a correlated count.
    Scalar,
}

impl Decorrelated {
    /// `EXISTS (subquery)` as a value.
    fn exists(self, subquery: Subquery) -> Result<Expr> {
        let exists = existence(subquery, false)?;
        let Expr::Exists(Exists { subquery, .. }) = exists else { return Ok(exists) };
        let correlated = !subquery.outer_ref_columns.is_empty();
        if correlated && matches!(self, Decorrelated::Join) {
            return Ok(Expr::Exists(Exists { subquery, negated: false }));
        }
        let mut rows = LogicalPlanBuilder::new_from_arc(subquery.subquery);
        if !correlated {
            // One row is enough.
            rows = rows.limit(0, Some(1))?;
        }
        let plan = rows.aggregate(Vec::<Expr>::new(), [count(lit(1))])?.build()?;
        Ok(Expr::ScalarSubquery(as_subquery(plan)).gt(lit(0_i64)))
    }
}

fn as_subquery(plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() }
}

fn binary(left: Expr, operator: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(left.into(), operator, right.into()))
}

/// An expression of the outer query inside a subquery.
fn outer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.rewrite_up(&mut |part| match part {
        Expr::Column(column) => {
            let (relation, field) = schema.qualified_field_from_column(&column)?;
            let outer = Column::new(relation.cloned(), column.name);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field.clone(), outer)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// `EXISTS (subquery)`, without the subqueries that the engine's join does not do justice.
fn existence(subquery: Subquery, negated: bool) -> Result<Expr> {
    if one_row(&subquery.subquery) {
        return Ok(lit(!negated));
    }
    let correlated = !subquery.outer_ref_columns.is_empty();
    if correlated && let Some(having) = having_of_one(&subquery.subquery) {
        let plan = LogicalPlanBuilder::new_from_arc(having.input).project([having.predicate])?.build()?;
        let holds = Expr::ScalarSubquery(as_subquery(plan));
        return Ok(if negated { holds.is_not_true() } else { holds.is_true() });
    }
    Ok(Expr::Exists(Exists { subquery, negated }))
}

/// The node below those that change neither whether there is a row nor how many there are, as long as there is one.
fn core(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Projection(node) => core(&node.input),
        LogicalPlan::SubqueryAlias(node) => core(&node.input),
        LogicalPlan::Sort(node) => core(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => core(input),
        LogicalPlan::Limit(limit) => match (limit.get_skip_type(), limit.get_fetch_type()) {
            (Ok(SkipType::Literal(0)), Ok(FetchType::Literal(fetch))) if fetch != Some(0) => {
                core(&limit.input)
            }
            _ => None,
        },
        node => Some(node),
    }
}

/// Whether a plan always gives exactly one row: an aggregate without GROUP BY, or no FROM.
fn one_row(plan: &LogicalPlan) -> bool {
    match core(plan) {
        Some(LogicalPlan::Aggregate(aggregate)) => aggregate.group_expr.is_empty(),
        Some(LogicalPlan::EmptyRelation(empty)) => empty.produce_one_row,
        _ => false,
    }
}

/// The HAVING of an aggregate without GROUP BY.
fn having_of_one(plan: &LogicalPlan) -> Option<Filter> {
    match core(plan) {
        Some(LogicalPlan::Filter(filter)) if one_row(&filter.input) => Some(filter.clone()),
        _ => None,
    }
}

/// Refuses a correlated subquery that reads a table under the name of the outer table that `value` reads. The engine
/// would take one for the other.
fn refuse_hidden_columns(value: &Expr, subquery: &Subquery) -> Result<()> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(());
    }
    let columns = value.column_refs();
    subquery.subquery.look_at_all(&mut |node| match columns
        .iter()
        .find(|column| node.schema().has_column(column))
    {
        Some(column) => {
            not_impl_err!("'{column}' beside a correlated subquery that has it, too; use an alias")
        }
        None => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}
