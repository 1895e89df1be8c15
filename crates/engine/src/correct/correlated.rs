//! Correlated subqueries of every shape.
//!
//! The engine joins a subquery to its outer query where it can move the conditions that name outer columns to the top
//! of the subquery. It cannot beyond a LIMIT, a UNION, a DISTINCT or a second aggregate, where a condition is no
//! equality, and where an outer column stands outside of conditions.
//!
//! Such a subquery is computed for all of its outer values at once (Neumann and Kemper, "Unnesting Arbitrary Queries",
//! BTW 2015). The distinct values of the outer columns that it names are the *domain*. The domain moves down the
//! subquery as additional columns, until nothing below names an outer column, and is crossed with that:
//!
//! ```text
//! domain x Filter(p, S)               = Filter(p, domain x S)
//! domain x Aggregate(g, a, S)         = Aggregate(domain + g, a, domain x S)
//! domain x Aggregate((), a, S)        = domain LEFT JOIN Aggregate(domain, a, domain x S), with 0 for a missing count
//! domain x Limit(Sort(o, S))          = rows of domain x S numbered by o within each value of the domain
//! domain x (S UNION T)                = domain x S UNION domain x T
//! domain x (S JOIN T)                 = (domain x S) JOIN (domain x T) ON the same value of the domain
//! ```
//!
//! The outer query then joins the result by the values of the domain, NULL included.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, JoinType, NullEquality, Result, Spans, plan_err,
};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprFunctionExt, ExprSchemable, FetchType, Filter, Join, Limit,
    LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType, Subquery, Union, Window, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::{Plans, Tree};

use super::names::Names;
use super::walk;

/// Joins the correlated subqueries that the engine cannot join.
#[derive(Debug)]
pub(super) struct Unnested;

impl AnalyzerRule for Unnested {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let subquery = |expr: &Expr| matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_));
        let may_change = |node: &LogicalPlan| {
            Ok(matches!(node, LogicalPlan::Subquery(_)) || walk::node_holds(node, &subquery)?)
        };
        if !walk::nodes(&plan, &may_change)? {
            return Ok(plan);
        }
        let names = Names::default();
        walk::settled(plan.rewrite_plans_down(&mut |node| outer_query(&names, node))?)
    }

    fn name(&self) -> &'static str {
        "correlated_subqueries"
    }
}

/// Joins the subqueries of one node.
fn outer_query(names: &Names, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let input = match &node {
        LogicalPlan::Filter(filter) => filter.input.clone(),
        LogicalPlan::Projection(projection) => projection.input.clone(),
        LogicalPlan::Join(join) => return lateral(names, join, &node),
        _ => return Ok(Transformed::no(node)),
    };
    let columns = node.schema().columns();
    let (base, mut input) = (input.clone(), input);
    let kept = NamePreserver::new(&node);
    let node = node.rewrite_expressions(&mut |expr| {
        let name = kept.save(&expr);
        let joined = expr.rewrite_down(&mut |part| match join_part(names, &part, &base, &mut input)? {
            Some(value) => Ok(Transformed::new(value, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(part)),
        })?;
        Ok(joined.update_data(|expr| name.restore(expr)))
    })?;
    if !node.transformed {
        return Ok(node);
    }
    let plan = match node.data {
        LogicalPlan::Filter(filter) => {
            let filter = LogicalPlan::Filter(Filter::try_new(filter.predicate, input)?);
            project(filter, columns.into_iter().map(Expr::Column).collect())?
        }
        LogicalPlan::Projection(projection) => {
            LogicalPlan::Projection(Projection::try_new(projection.expr, input)?)
        }
        other => other,
    };
    Ok(Transformed::yes(plan))
}

/// Joins a subquery of a query over `base` to `input`, and returns its value. `None` for what is no subquery, for one
/// that the engine can join, and for one that nobody can: then the engine says so.
fn join_part(
    names: &Names,
    part: &Expr,
    base: &Arc<LogicalPlan>,
    input: &mut Arc<LogicalPlan>,
) -> Result<Option<Expr>> {
    let (subquery, scalar) = match part {
        Expr::ScalarSubquery(subquery) => (subquery, true),
        Expr::Exists(Exists { subquery, .. }) => (subquery, false),
        _ => return Ok(None),
    };
    let plan = subquery.subquery.as_ref();
    if is_simple(plan, if scalar { Place::Value } else { Place::Condition }) || scalar && !has_one_row(plan) {
        return Ok(None);
    }
    let Some(domain) = Domain::of(names, plan, base)? else { return Ok(None) };
    let Ok(rows) = domain.down(plan) else { return Ok(None) };
    let value = names.next("joined");
    let result = if scalar {
        let column = Expr::Column(rows.schema().columns()[domain.keys.len()].clone());
        project(rows, domain.key_columns().chain([column.alias(&value)]).collect())?
    } else {
        let keys = Distinct::All(Arc::new(project(rows, domain.key_columns().collect())?));
        project(LogicalPlan::Distinct(keys), domain.key_columns().chain([lit(true).alias(&value)]).collect())?
    };
    *input = Arc::new(domain.joined(input, result, JoinType::Left)?);
    let column = Expr::Column(Column::new_unqualified(value));
    Ok(Some(match part {
        Expr::Exists(Exists { negated: true, .. }) => column.is_null(),
        Expr::Exists(_) => column.is_not_null(),
        _ => column,
    }))
}

/// Joins a subquery of `LATERAL`.
fn lateral(names: &Names, join: &Join, node: &LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (alias, subquery) = match join.right.as_ref() {
        LogicalPlan::Subquery(subquery) => (None, subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => (Some(alias), subquery),
            _ => return Ok(Transformed::no(node.clone())),
        },
        _ => return Ok(Transformed::no(node.clone())),
    };
    let plan = subquery.subquery.as_ref();
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) || is_simple(plan, Place::Lateral) {
        return Ok(Transformed::no(node.clone()));
    }
    let Some(domain) = Domain::of(names, plan, &join.left)? else {
        return Ok(Transformed::no(node.clone()));
    };
    let Ok(rows) = domain.down(plan) else { return Ok(Transformed::no(node.clone())) };
    let columns = rows.schema().columns().into_iter().map(Expr::Column);
    let named =
        columns.enumerate().map(|(index, column)| match (alias, index.checked_sub(domain.keys.len())) {
            (Some(alias), Some(index)) => {
                let (relation, field) = alias.schema.qualified_field(index);
                column.alias_qualified(relation.cloned(), field.name())
            }
            _ => column,
        });
    let rows = project(rows, named.collect())?;
    let joined = domain.joined_if(&join.left, rows, join)?;
    let columns = node.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(project(joined, columns)?))
}

/// Where a subquery stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a value.
    Value,
    /// It is the subquery of `EXISTS`.
    Condition,
    /// It is a table.
    Lateral,
}

/// Whether the engine can join a subquery: outer columns stand only in conditions, which can move to its top.
fn is_simple(plan: &LogicalPlan, place: Place) -> bool {
    let bare = !names_outside(plan);
    match plan {
        plan if !is_correlated(plan) => true,
        LogicalPlan::Projection(node) => bare && is_simple(&node.input, place),
        LogicalPlan::SubqueryAlias(node) => is_simple(&node.input, place),
        LogicalPlan::Sort(node) => bare && is_simple(&node.input, place),
        LogicalPlan::Distinct(Distinct::All(input)) => place == Place::Condition && is_simple(input, place),
        LogicalPlan::Filter(node) => match bare {
            // Not every row counts any more.
            true if place == Place::Condition => is_source(&node.input, place),
            true => is_simple(&node.input, place),
            false => is_simple_filter(node, place) && is_source(&node.input, place),
        },
        LogicalPlan::Limit(node) => {
            let first = matches!(node.get_skip_type(), Ok(SkipType::Literal(0)))
                && matches!(node.get_fetch_type(), Ok(FetchType::Literal(Some(1..) | None)));
            place == Place::Condition && first && is_simple(&node.input, place)
        }
        // Of the groups of a value the engine checks that there is one.
        LogicalPlan::Aggregate(node) => {
            let groups = place == Place::Value || node.group_expr.is_empty();
            place != Place::Condition && bare && groups && is_source(&node.input, place)
        }
        _ => false,
    }
}

/// Whether a plan below an aggregate, or below a condition, is simple.
pub(super) fn is_source(plan: &LogicalPlan, place: Place) -> bool {
    let bare = !names_outside(plan);
    match plan {
        plan if !is_correlated(plan) => true,
        LogicalPlan::Projection(node) => bare && is_source(&node.input, place),
        LogicalPlan::SubqueryAlias(node) => is_source(&node.input, place),
        LogicalPlan::Filter(node) => (bare || is_simple_filter(node, place)) && is_source(&node.input, place),
        _ => false,
    }
}

/// Whether the engine can move the conditions of a filter that name outer columns. Below an aggregate it makes a group
/// of each value of the inner columns, so there a condition must compare such a column itself with an outer value. Both
/// zeros are one value, but two groups.
fn is_simple_filter(filter: &Filter, place: Place) -> bool {
    let nested = filter.predicate.holds(&mut |part| is_subquery(part)).unwrap_or(true);
    let schema = filter.input.schema();
    let grouped = |inner: &Expr| {
        matches!(inner, Expr::Column(_)) && inner.get_type(schema).is_ok_and(|kind| !kind.is_floating())
    };
    let equal = |part: &&Expr| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let apart = |inner: &Expr, outer: &Expr| grouped(inner) && outer.column_refs().is_empty();
            apart(left, right) || apart(right, left)
        }
        _ => false,
    };
    let parts = split_conjunction(&filter.predicate);
    !nested && (place == Place::Condition || parts.iter().filter(|part| part.contains_outer()).all(equal))
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// Whether a plan always gives at most one row.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(node) => has_one_row(&node.input),
        LogicalPlan::SubqueryAlias(node) => has_one_row(&node.input),
        LogicalPlan::Sort(node) => has_one_row(&node.input),
        LogicalPlan::Filter(node) => has_one_row(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => has_one_row(input),
        LogicalPlan::Aggregate(node) => node.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Limit(node) => {
            matches!(node.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) || has_one_row(&node.input)
        }
        _ => false,
    }
}

/// The columns outside of a plan that it names, its own subqueries included.
fn outside(plan: &LogicalPlan) -> Vec<Column> {
    let mut found = Vec::new();
    collect(plan, &mut found);
    found
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Column>) {
    let mut own = of_expressions(plan);
    own.retain(|column| !found.contains(column));
    found.extend(own);
    for input in plan.inputs() {
        collect(input, found);
    }
}

/// The outer columns that the expressions of one node name.
fn of_expressions(node: &LogicalPlan) -> Vec<Column> {
    let scope = walk::inputs(node).unwrap_or_else(|_| Arc::new(DFSchema::empty()));
    let mut found: Vec<Column> = Vec::new();
    let mut add = |column: &Column| {
        if !found.contains(column) {
            found.push(column.clone());
        }
    };
    let _ = node.look_at_expressions(&mut |expr| {
        expr.look_at_all(&mut |part| {
            if let Expr::OuterReferenceColumn(_, column) = part {
                add(column);
            }
            if let Some(subquery) = subquery_of(part) {
                outside(&subquery.subquery)
                    .iter()
                    .filter(|column| !scope.has_column(column))
                    .for_each(&mut add);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found
}

/// Whether the expressions of a node name outer columns.
fn names_outside(node: &LogicalPlan) -> bool {
    !of_expressions(node).is_empty()
}

fn is_correlated(plan: &LogicalPlan) -> bool {
    !outside(plan).is_empty()
}

fn project(input: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// A column of the outer query in the domain.
struct Key {
    outer: Column,
    name: String,
}

/// The distinct values of the outer columns that a subquery names.
struct Domain<'a> {
    names: &'a Names,
    keys: Vec<Key>,
    plan: LogicalPlan,
}

impl<'a> Domain<'a> {
    /// The domain of a subquery in a query over `input`. `None` if it names no column of `input`.
    fn of(names: &'a Names, subquery: &LogicalPlan, input: &Arc<LogicalPlan>) -> Result<Option<Domain<'a>>> {
        let outer = outside(subquery).into_iter().filter(|column| input.schema().has_column(column));
        let keys: Vec<Key> = outer.map(|outer| Key { outer, name: names.next("outer") }).collect();
        if keys.is_empty() {
            return Ok(None);
        }
        let columns = keys.iter().map(|key| Expr::Column(key.outer.clone()).alias(&key.name)).collect();
        let values = Projection::try_new(columns, input.clone())?;
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(values))));
        Ok(Some(Domain { names, keys, plan }))
    }

    fn columns(&self) -> Vec<Column> {
        self.keys.iter().map(|key| Column::new_unqualified(key.name.clone())).collect()
    }

    fn key_columns(&self) -> impl Iterator<Item = Expr> {
        self.columns().into_iter().map(Expr::Column)
    }

    /// Joins rows that have the columns of the domain to the outer query.
    fn joined(&self, input: &Arc<LogicalPlan>, rows: LogicalPlan, kind: JoinType) -> Result<LogicalPlan> {
        let outer: Vec<Column> = self.keys.iter().map(|key| key.outer.clone()).collect();
        LogicalPlanBuilder::new_from_arc(input.clone())
            .join_detailed(rows, kind, (outer, self.columns()), None, NullEquality::NullEqualsNull)?
            .build()
    }

    /// The same with the condition of a lateral join.
    fn joined_if(&self, input: &Arc<LogicalPlan>, rows: LogicalPlan, join: &Join) -> Result<LogicalPlan> {
        let outer = self.keys.iter().map(|key| Expr::Column(key.outer.clone()));
        let mut parts: Vec<Expr> =
            outer.zip(self.key_columns()).map(|(outer, key)| same(outer, key)).collect();
        parts.extend(join.on.iter().map(|(left, right)| left.clone().eq(right.clone())));
        parts.extend(join.filter.clone());
        LogicalPlanBuilder::new_from_arc(input.clone()).join_on(rows, join.join_type, parts)?.build()
    }

    /// The rows of a plan for each value of the domain. The first columns are those of the domain, the others those of
    /// the plan.
    fn down(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if !is_correlated(plan) {
            return self.crossed(plan);
        }
        match plan {
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::Filter(node) => {
                let input = self.down(&node.input)?;
                let predicate = self.inside(node.predicate.clone(), node.input.schema())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(node) => self.renamed(self.down(&node.input)?, &node.schema),
            LogicalPlan::Subquery(node) => self.down(&node.subquery),
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(self.down(input)?))))
            }
            LogicalPlan::Sort(node) if node.fetch.is_none() => self.down(&node.input),
            LogicalPlan::Limit(node) => self.limit(node),
            LogicalPlan::Window(node) => self.window(node),
            LogicalPlan::Union(node) => self.union(node),
            LogicalPlan::Join(node) => self.join(node),
            other => plan_err!("Unsupported Subquery plan: {}", other.display()),
        }
    }

    fn crossed(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        LogicalPlanBuilder::from(self.plan.clone()).cross_join(plan.clone())?.build()
    }

    /// An expression of the subquery, with columns of the domain for outer columns. In subqueries of its own they are
    /// outer columns still.
    fn inside(&self, expr: Expr, scope: &DFSchema) -> Result<Expr> {
        expr.rewrite_up(&mut |part| match part {
            Expr::OuterReferenceColumn(field, column) => Ok(match self.key(&column) {
                Some(key) => Transformed::yes(Expr::Column(key)),
                None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            }),
            Expr::ScalarSubquery(subquery) => {
                Ok(Transformed::yes(Expr::ScalarSubquery(self.nested(&subquery, scope)?)))
            }
            Expr::Exists(Exists { subquery, negated }) => {
                let subquery = self.nested(&subquery, scope)?;
                Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated })))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let subquery = self.nested(&subquery, scope)?;
                Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn key(&self, column: &Column) -> Option<Column> {
        let key = self.keys.iter().find(|key| key.outer == *column)?;
        Some(Column::new_unqualified(key.name.clone()))
    }

    /// A subquery of the subquery. `scope` has the columns that belong to the node between.
    fn nested(&self, subquery: &Subquery, scope: &DFSchema) -> Result<Subquery> {
        let plan = subquery.subquery.as_ref().clone();
        let hidden = |node: &LogicalPlan| self.keys.iter().any(|key| node.schema().has_column(&key.outer));
        plan.look_at_plans(&mut |node| match hidden(node) {
            true => plan_err!("Unsupported Subquery plan: a name in two queries"),
            false => Ok(TreeNodeRecursion::Continue),
        })?;
        let renamed = plan.rewrite_plans_up(&mut |node| {
            let names = NamePreserver::new(&node);
            node.rewrite_expressions(&mut |expr| {
                let name = names.save(&expr);
                let renamed = expr.rewrite_up(&mut |part| self.outer_key(part, scope))?;
                Ok(renamed.update_data(|expr| name.restore(expr)))
            })
        })?;
        let plan = renamed.data;
        let outer_ref_columns = plan.all_out_ref_exprs();
        Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() })
    }

    /// An outer column of a nested subquery as a column of the domain, which is an outer column there.
    fn outer_key(&self, part: Expr, scope: &DFSchema) -> Result<Transformed<Expr>> {
        let Expr::OuterReferenceColumn(field, column) = part else { return Ok(Transformed::no(part)) };
        Ok(match self.key(&column) {
            Some(key) if !scope.has_column(&column) => {
                Transformed::yes(Expr::OuterReferenceColumn(field, key))
            }
            _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        })
    }

    /// Expressions of one node under the names that they had.
    fn kept(&self, exprs: &[Expr], scope: &DFSchema) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let one = |expr: &Expr| Ok(names.save(expr).restore(self.inside(expr.clone(), scope)?));
        exprs.iter().map(one).collect()
    }

    fn projection(&self, node: &Projection) -> Result<LogicalPlan> {
        let input = self.down(&node.input)?;
        let exprs = self.kept(&node.expr, node.input.schema())?;
        project(input, self.key_columns().chain(exprs).collect())
    }

    /// The same rows with the names of `schema` after the columns of the domain.
    fn renamed(&self, rows: LogicalPlan, schema: &DFSchemaRef) -> Result<LogicalPlan> {
        let columns = rows.schema().columns().into_iter().skip(self.keys.len());
        let named = columns.zip(schema.iter()).map(|(column, (relation, field))| {
            Expr::Column(column).alias_qualified(relation.cloned(), field.name())
        });
        let exprs = self.key_columns().chain(named).collect();
        project(rows, exprs)
    }

    fn aggregate(&self, node: &Aggregate) -> Result<LogicalPlan> {
        if node.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
            return plan_err!("Unsupported Subquery plan: grouping sets");
        }
        let input = Arc::new(self.down(&node.input)?);
        let scope = node.input.schema();
        let groups = self.key_columns().chain(self.kept(&node.group_expr, scope)?).collect();
        let values = self.kept(&node.aggr_expr, scope)?;
        let rows = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, values)?);
        if !node.group_expr.is_empty() {
            return Ok(rows);
        }
        // Every value of the domain has a row, also if there was none to aggregate.
        let found = self.names.next("found");
        let again: Vec<String> = self.keys.iter().map(|_| self.names.next("outer")).collect();
        let columns = rows.schema().columns();
        let exprs = columns.iter().enumerate().map(|(index, column)| {
            let column = Expr::Column(column.clone());
            if let Some(name) = again.get(index) { column.alias(name) } else { column }
        });
        let exprs = exprs.chain([lit(true).alias(&found)]).collect();
        let rows = project(rows, exprs)?;
        let other: Vec<Column> = again.into_iter().map(Column::new_unqualified).collect();
        let joined = LogicalPlanBuilder::from(self.plan.clone())
            .join_detailed(rows, JoinType::Left, (self.columns(), other), None, NullEquality::NullEqualsNull)?
            .build()?;
        let values =
            columns.into_iter().skip(self.keys.len()).zip(&node.aggr_expr).map(|(column, aggregate)| {
                let (relation, name) = (column.relation.clone(), column.name.clone());
                let missing = if_missing(aggregate, joined.schema().field_from_column(&column)?.data_type())?;
                let there = Expr::Column(Column::new_unqualified(&found)).is_not_null();
                let value = match missing {
                    Some(missing) => when(there, Expr::Column(column)).otherwise(missing)?,
                    None => return Ok(Expr::Column(column)),
                };
                Ok(value.alias_qualified(relation, name))
            });
        let values = values.collect::<Result<Vec<_>>>()?;
        project(joined, self.key_columns().chain(values).collect())
    }

    fn limit(&self, node: &Limit) -> Result<LogicalPlan> {
        // A projection gives a row for each row, so that the limit can stand below it, beside the order.
        match node.input.as_ref() {
            LogicalPlan::Projection(inner) => {
                let below = Limit { input: inner.input.clone(), ..node.clone() };
                let input = Arc::new(LogicalPlan::Limit(below));
                return self.projection(&Projection::try_new(inner.expr.clone(), input)?);
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = Limit { input: alias.input.clone(), ..node.clone() };
                return self.renamed(self.limit(&below)?, &alias.schema);
            }
            _ => {}
        }
        let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) =
            (node.get_skip_type(), node.get_fetch_type())
        else {
            return plan_err!("Unsupported Subquery plan: a LIMIT that is no constant");
        };
        let (sorts, input): (&[Sort], _) = match node.input.as_ref() {
            LogicalPlan::Sort(sort) => (sort.expr.as_slice(), &sort.input),
            _ => (&[], &node.input),
        };
        let scope = input.schema();
        let rows = self.down(input)?;
        let columns: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
        let order = |sort: &Sort| -> Result<Sort> {
            Ok(Sort { expr: self.inside(sort.expr.clone(), scope)?, ..sort.clone() })
        };
        let order = sorts.iter().map(order).collect::<Result<Vec<_>>>()?;
        let number = row_number().partition_by(self.key_columns().collect()).order_by(order).build()?;
        let name = Expr::Column(Column::new_unqualified(number.schema_name().to_string()));
        let whole = |count: usize| lit(u64::try_from(count).unwrap_or(u64::MAX));
        let mut wanted = name.clone().gt(whole(skip));
        if let Some(fetch) = fetch {
            wanted = wanted.and(name.lt_eq(whole(skip.saturating_add(fetch))));
        }
        let numbered = LogicalPlanBuilder::from(rows).window([number])?.build()?;
        project(LogicalPlan::Filter(Filter::try_new(wanted, Arc::new(numbered))?), columns)
    }

    fn window(&self, node: &Window) -> Result<LogicalPlan> {
        let input = self.down(&node.input)?;
        let scope = node.input.schema();
        let apart = |expr: &Expr| -> Result<Expr> {
            let expr = self.inside(expr.clone(), scope)?;
            expr.rewrite_up(&mut |part| match part {
                Expr::WindowFunction(mut function) => {
                    let keys = self.key_columns().chain(std::mem::take(&mut function.params.partition_by));
                    function.params.partition_by = keys.collect();
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })
            .data()
        };
        let windows = node.window_expr.iter().map(apart).collect::<Result<Vec<_>>>()?;
        let rows = LogicalPlan::Window(Window::try_new(windows, Arc::new(input))?);
        self.renamed(rows, &node.schema)
    }

    fn union(&self, node: &Union) -> Result<LogicalPlan> {
        let mut inputs = node.inputs.iter().map(|input| self.renamed(self.down(input)?, &node.schema));
        let Some(first) = inputs.next() else { return plan_err!("Unsupported Subquery plan: no union") };
        let union = inputs.try_fold(LogicalPlanBuilder::from(first?), |all, one| all.union(one?))?.build()?;
        self.renamed(union, &node.schema)
    }

    fn join(&self, node: &Join) -> Result<LogicalPlan> {
        use JoinType::{Inner, Left, LeftAnti, LeftSemi};
        if !matches!(node.join_type, Inner | Left | LeftSemi | LeftAnti) {
            return plan_err!("Unsupported Subquery plan: {} JOIN", node.join_type);
        }
        let scope = walk::inputs(&LogicalPlan::Join(node.clone()))?;
        let mut parts = Vec::new();
        for (left, right) in &node.on {
            let both = left.clone().eq(right.clone());
            parts.push(match node.null_equality {
                NullEquality::NullEqualsNothing => both,
                NullEquality::NullEqualsNull => same(left.clone(), right.clone()),
            });
        }
        parts.extend(node.filter.clone());
        let mut parts =
            parts.into_iter().map(|part| self.inside(part, &scope)).collect::<Result<Vec<_>>>()?;
        let left = self.down(&node.left)?;
        let right = match is_correlated(&node.right) {
            false => node.right.as_ref().clone(),
            true => {
                let rows = self.down(&node.right)?;
                let again: Vec<String> = self.keys.iter().map(|_| self.names.next("outer")).collect();
                let other = again.iter().map(|name| Expr::Column(Column::new_unqualified(name)));
                parts.extend(self.key_columns().zip(other).map(|(one, other)| same(one, other)));
                let columns = rows.schema().columns().into_iter().map(Expr::Column).enumerate();
                let named = columns.map(|(index, column)| match again.get(index) {
                    Some(name) => column.alias(name),
                    None => column,
                });
                let named = named.collect();
                project(rows, named)?
            }
        };
        if parts.is_empty() {
            parts.push(lit(true));
        }
        let joined = LogicalPlanBuilder::from(left).join_on(right, node.join_type, parts)?.build()?;
        let columns = node.schema.columns().into_iter().map(Expr::Column);
        project(joined, self.key_columns().chain(columns).collect())
    }
}

fn same(left: Expr, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(left.into(), Operator::IsNotDistinctFrom, right.into()))
}

/// The value of an aggregate over no rows. `None` for NULL.
fn if_missing(aggregate: &Expr, kind: &arrow::datatypes::DataType) -> Result<Option<Expr>> {
    match aggregate {
        Expr::Alias(alias) => if_missing(&alias.expr, kind),
        Expr::AggregateFunction(AggregateFunction { func, .. }) => {
            let value = func.default_value(kind)?;
            Ok((!value.is_null()).then(|| lit(value)))
        }
        _ => Ok(None),
    }
}
