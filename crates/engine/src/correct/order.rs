//! Orders as the engine can take them. It panics if one ORDER BY names an expression twice, and if an aggregate whose
//! result has no order is told one. Neither changes an answer.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::Plans;

use super::walk;

/// Aggregates whose result depends on the order of their rows. Those with WITHIN GROUP keep their order, too.
const ORDERED: &[&str] = &["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// Removes what orders say twice or in vain.
#[derive(Debug)]
pub(super) struct PlainOrders;

impl AnalyzerRule for PlainOrders {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = walk::expressions(plan, &may_be_ordered, &function)?;
        let sorts = |node: &LogicalPlan| {
            matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Distinct(Distinct::On(_)))
        };
        match walk::nodes(&plan, &|node| Ok(sorts(node)))? {
            true => walk::settled(plan.rewrite_plans_up(&mut node)?),
            false => Ok(plan),
        }
    }

    fn name(&self) -> &'static str {
        "plain_orders"
    }
}

fn may_be_ordered(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(_) | Expr::WindowFunction(_))
}

fn function(expr: Expr, _: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let ordered = ORDERED.contains(&func.name()) || func.supports_within_group_clause();
            let any = match ordered {
                true => once(&mut params.order_by),
                false => !std::mem::take(&mut params.order_by).is_empty(),
            };
            let expr = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(Transformed::new_transformed(expr, any))
        }
        Expr::WindowFunction(mut function) => {
            // Frames of RANGE and GROUPS count with the one expression that there must be.
            let aggregate = matches!(function.fun, WindowFunctionDefinition::AggregateUDF(_));
            let any =
                (!aggregate || function.params.order_by.len() > 1) && once(&mut function.params.order_by);
            Ok(Transformed::new_transformed(Expr::WindowFunction(function), any))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Sort(mut sort) => {
            let any = once(&mut sort.expr);
            Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), any))
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            let any = distinct.sort_expr.as_mut().is_some_and(once);
            Ok(Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(distinct)), any))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Keeps the first order of each expression. Among rows for which it decides nothing, neither does the second.
fn once(orders: &mut Vec<Sort>) -> bool {
    let before = orders.len();
    let mut kept: Vec<Sort> = Vec::with_capacity(before);
    for order in orders.drain(..) {
        if !kept.iter().any(|one| bare(&one.expr) == bare(&order.expr)) {
            kept.push(order);
        }
    }
    *orders = kept;
    orders.len() < before
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        expr => expr,
    }
}
