//! Conditions that the engine's simplifier must not join.
//!
//! It makes `a IN (1) AND a IN (2)` false, though it is unknown where `a` is NULL, and it forgets the NULL of a list.
//! It does so where two lists have the same value. So, while it works, each list gets a value of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::trees::{Plans, Tree};

use super::walk;

/// The engine's simplifier, which leaves lists apart.
#[derive(Debug, Default)]
pub(super) struct SimplifyApart(SimplifyExpressions);

impl OptimizerRule for SimplifyApart {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if is_plain(&plan)? {
            return Ok(Transformed::no(plan));
        }
        if !has_lists(&plan)? {
            return self.0.rewrite(plan, config);
        }
        let mut any = false;
        let apart = plan.rewrite_expressions(&mut |expr| {
            let apart = set_apart(expr)?;
            any |= apart.transformed;
            Ok(apart)
        })?;
        let simplified = self.0.rewrite(apart.data, config)?;
        if !any {
            return Ok(simplified);
        }
        // The simplifier may put a projection on top of an aggregate.
        simplified
            .map_data(|plan| plan.rewrite_up(&mut |node| node.rewrite_expressions(&mut together)).data())
    }
}

/// Whether the expressions of a node are constants and columns, which nothing makes simpler. The simplifier also
/// rewrites aggregates that have none.
fn is_plain(node: &LogicalPlan) -> Result<bool> {
    let plain = |part: &Expr| matches!(part, Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_));
    Ok(!matches!(node, LogicalPlan::Aggregate(_)) && !walk::node_holds(node, &|part| !plain(part))?)
}

/// Whether an expression of a node may have several lists.
fn has_lists(node: &LogicalPlan) -> Result<bool> {
    let mut any = false;
    node.look_at_expressions(&mut |expr| {
        let mut lists = 0;
        expr.look_at_all(&mut |part| {
            let chains = matches!(part, Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }));
            lists += usize::from(chains || matches!(part, Expr::InList(_)));
            Ok(TreeNodeRecursion::Continue)
        })?;
        any |= lists > 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(any)
}

/// Gives each of several lists over one value a value of its own.
fn set_apart(expr: Expr) -> Result<Transformed<Expr>> {
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    expr.look_at_all(&mut |part| {
        if let Some(value) = listed(part) {
            *lists.entry(value.to_string()).or_default() += 1;
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    lists.retain(|_, count| *count > 1);
    if lists.is_empty() {
        return Ok(Transformed::no(expr));
    }
    let mut number = 0_i64;
    expr.rewrite_down(&mut |part| {
        let Some(value) = listed(&part).filter(|value| lists.contains_key(&value.to_string())).cloned()
        else {
            return Ok(Transformed::no(part));
        };
        number += 1;
        let apart = Apart::call(value.clone(), number);
        let set = part.rewrite_down(&mut |inner| match inner == value {
            true => Ok(Transformed::new(apart.clone(), true, TreeNodeRecursion::Jump)),
            false => Ok(Transformed::no(inner)),
        })?;
        Ok(Transformed::new(set.data, true, TreeNodeRecursion::Jump))
    })
}

/// The value of a list: of `IN`, or of a chain `a = 1 OR a = 2`, which the simplifier makes a list of. The simplifier
/// also takes casts off a value.
fn listed(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::InList(InList { expr, .. }) => Some(bare(expr)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (left, right) = (chained(left)?, chained(right)?);
            (left == right).then_some(left)
        }
        _ => None,
    }
}

/// The value of a part of such a chain.
fn chained(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (Expr::Literal(..), Expr::Literal(..)) => None,
            (value, Expr::Literal(..)) | (Expr::Literal(..), value) => Some(bare(value)),
            _ => None,
        },
        Expr::InList(InList { negated: true, .. }) => None,
        other => listed(other),
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => bare(&cast.expr),
        Expr::TryCast(cast) => bare(&cast.expr),
        expr => expr,
    }
}

/// Takes the own values away.
fn together(expr: Expr) -> Result<Transformed<Expr>> {
    expr.rewrite_up(&mut |part| match part {
        Expr::ScalarFunction(mut call) if call.func.inner().is::<Apart>() => {
            Ok(Transformed::yes(call.args.swap_remove(0)))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Stands for its first argument while the simplifier works. The second argument makes it differ from others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Apart(Signature);

impl Apart {
    fn call(value: Expr, number: i64) -> Expr {
        // A constant must not be computed with it.
        let signature = Signature::any(2, Volatility::Volatile);
        ScalarUDF::new_from_impl(Apart(signature)).call(vec![value, lit(number)])
    }
}

impl ScalarUDFImpl for Apart {
    fn name(&self) -> &'static str {
        "apart"
    }

    /// The name of a column without an alias stays that of the value.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args[0].schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[0]))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("'apart' is there for the simplifier alone")
    }
}
