//! One zero. IEEE 754 and SQL say that `-0.0` equals `0.0`. The engine compares floating-point numbers by their total
//! order, in which `-0.0` comes before `0.0`.
//!
//! A comparison with a constant keeps its column bare, so that files can still be skipped by it: only a zero needs
//! another comparison. Everything else that compares (two columns, keys of joins and groups, sorting, `DISTINCT`)
//! compares values without the sign of zero. Values in results keep their sign.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, InList, Sort, WindowFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, Case, ColumnarValue, Distinct, Expr, ExprSchemable, Join, JoinConstraint,
    LogicalPlan, LogicalPlanBuilder, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::{Plans, Tree};

use super::comparisons::{compares, is_comparison};
use super::walk;

/// Makes every comparison of floating-point numbers take both zeros for one.
#[derive(Debug)]
pub(super) struct OneZero;

impl AnalyzerRule for OneZero {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = walk::expressions(plan, &may_compare, &expression)?;
        if !walk::nodes(&plan, &|node| Ok(has_keys(node)))? {
            return Ok(plan);
        }
        let mut any = false;
        let rewritten = plan.rewrite_plans_up(&mut |node| {
            let node = keys(node)?;
            any |= node.transformed;
            if any { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
        });
        rewritten.data()
    }

    fn name(&self) -> &'static str {
        "one_zero"
    }
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64))
}

/// A value without the sign of zero.
fn unsigned(value: Expr) -> Expr {
    match value {
        Expr::Literal(ScalarValue::Float64(Some(number)), _) => lit(number + 0.0),
        Expr::Literal(ScalarValue::Float32(Some(number)), _) => lit(number + 0.0),
        value => {
            ScalarUDF::new_from_impl(Unsigned(Signature::any(1, Volatility::Immutable))).call(vec![value])
        }
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

/// The zeros of a constant zero: the negative one and the other.
fn zeros(expr: &Expr) -> Option<[Expr; 2]> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(number)), _) if *number == 0.0 => {
            Some([lit(-0.0_f64), lit(0.0_f64)])
        }
        Expr::Literal(ScalarValue::Float32(Some(number)), _) if *number == 0.0 => {
            Some([lit(-0.0_f32), lit(0.0_f32)])
        }
        _ => None,
    }
}

/// Whether [`expression`] may rewrite an expression.
fn may_compare(expr: &Expr) -> bool {
    match expr {
        Expr::Case(case) => case.expr.is_some(),
        Expr::ScalarFunction(call) => call.name() == "nullif",
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => true,
        other => is_comparison(other),
    }
}

/// Rewrites one expression. The parts below it are done.
fn expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) && is_float(&left, schema) => {
            Ok(compared(*left, op, *right))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_float(&expr, schema) => {
            let inside = compared(*expr.clone(), Operator::GtEq, *low).data;
            let inside = inside.and(compared(*expr, Operator::LtEq, *high).data);
            Ok(Transformed::yes(if negated { Expr::Not(inside.into()) } else { inside }))
        }
        Expr::InList(InList { expr, list, negated }) if is_float(&expr, schema) => {
            Ok(Transformed::yes(in_list(*expr, list, negated)))
        }
        Expr::Case(Case { expr: Some(base), when_then_expr, else_expr }) if is_float(&base, schema) => {
            let when = |(when, then): (Box<Expr>, Box<Expr>)| (Box::new(unsigned(*when)), then);
            let when_then_expr = when_then_expr.into_iter().map(when).collect();
            Ok(Transformed::yes(Expr::Case(Case {
                expr: Some(Box::new(unsigned(*base))),
                when_then_expr,
                else_expr,
            })))
        }
        Expr::ScalarFunction(mut call) if call.name() == "nullif" && is_float(&call.args[0], schema) => {
            call.args = call.args.into_iter().map(unsigned).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let arguments = params.distinct && params.args.iter().any(|arg| is_float(arg, schema));
            if arguments {
                params.args = unsigned_all(params.args, schema);
            }
            let sorted = unsigned_sorts(&mut params.order_by, schema);
            let expr = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(Transformed::new_transformed(expr, arguments || sorted))
        }
        Expr::WindowFunction(function) => Ok(window(function, schema)),
        other => Ok(Transformed::no(other)),
    }
}

fn window(mut function: Box<WindowFunction>, schema: &DFSchema) -> Transformed<Expr> {
    let params = &mut function.params;
    let partitioned = params.partition_by.iter().any(|key| is_float(key, schema));
    if partitioned {
        params.partition_by = unsigned_all(std::mem::take(&mut params.partition_by), schema);
    }
    let sorted = unsigned_sorts(&mut params.order_by, schema);
    Transformed::new_transformed(Expr::WindowFunction(function), partitioned || sorted)
}

fn unsigned_all(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let done = |expr: Expr| if is_float(&expr, schema) { unsigned(expr) } else { expr };
    exprs.into_iter().map(done).collect()
}

fn unsigned_sorts(sorts: &mut [Sort], schema: &DFSchema) -> bool {
    let mut any = false;
    for sort in sorts.iter_mut().filter(|sort| is_float(&sort.expr, schema)) {
        sort.expr = unsigned(std::mem::take(&mut sort.expr));
        any = true;
    }
    any
}

/// Compares two floating-point numbers.
fn compared(left: Expr, operator: Operator, right: Expr) -> Transformed<Expr> {
    let plain =
        |left: Expr, op, right: Expr| Expr::BinaryExpr(BinaryExpr::new(left.into(), op, right.into()));
    if is_constant(&left)
        && !is_constant(&right)
        && let Some(swapped) = operator.swap()
    {
        return compared(right, swapped, left).update_data(|expr| expr);
    }
    let Some([negative, positive]) = zeros(&right) else {
        return match is_constant(&right) {
            true => Transformed::no(plain(left, operator, right)),
            false => Transformed::yes(plain(unsigned(left), operator, unsigned(right))),
        };
    };
    Transformed::yes(match operator {
        Operator::Eq => left.clone().gt_eq(negative).and(left.lt_eq(positive)),
        Operator::NotEq => left.clone().lt(negative).or(left.gt(positive)),
        Operator::Lt | Operator::GtEq => plain(left, operator, negative),
        Operator::LtEq | Operator::Gt => plain(left, operator, positive),
        other => plain(unsigned(left), other, positive),
    })
}

/// `value IN (list)`. A list of constants gets both zeros.
fn in_list(value: Expr, list: Vec<Expr>, negated: bool) -> Expr {
    if !list.iter().all(is_constant) {
        let list = list.into_iter().map(unsigned).collect();
        return Expr::InList(InList::new(Box::new(unsigned(value)), list, negated));
    }
    let both = |item: Expr| zeros(&item).map_or_else(|| vec![item], |zeros| zeros.to_vec());
    let list = list.into_iter().flat_map(both).collect();
    Expr::InList(InList::new(Box::new(value), list, negated))
}

/// Whether a node may compare rows by keys.
fn has_keys(node: &LogicalPlan) -> bool {
    use LogicalPlan::{Aggregate, Distinct, Join, Sort};
    matches!(node, Join(_) | Aggregate(_) | Distinct(_) | Sort(_))
}

/// Rewrites the keys by which a node compares rows.
fn keys(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Join(join) => Ok(join_keys(join)),
        LogicalPlan::Aggregate(mut aggregate) => {
            let schema = aggregate.input.schema().clone();
            if !aggregate.group_expr.iter().any(|key| holds_float(key, &schema)) {
                return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
            }
            let group = |key: Expr| group_key(key, &schema);
            aggregate.group_expr = aggregate.group_expr.into_iter().map(group).collect::<Result<_>>()?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let schema = input.schema().clone();
            let columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
            if !columns.iter().any(|column| is_float(column, &schema)) {
                return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
            }
            let columns = columns.into_iter().map(|column| named(column, &schema));
            let input = LogicalPlanBuilder::new_from_arc(input).project(columns)?.build()?;
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::All(Arc::new(input)))))
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            let schema = distinct.input.schema().clone();
            distinct.on_expr = unsigned_all(distinct.on_expr, &schema);
            if let Some(sorts) = &mut distinct.sort_expr {
                unsigned_sorts(sorts, &schema);
            }
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
        }
        LogicalPlan::Sort(mut sort) => {
            let schema = sort.input.schema().clone();
            let any = unsigned_sorts(&mut sort.expr, &schema);
            Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), any))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn join_keys(mut join: Join) -> Transformed<LogicalPlan> {
    let mut any = false;
    for (left, right) in &mut join.on {
        if is_float(left, join.left.schema()) {
            *left = unsigned(std::mem::take(left));
            *right = unsigned(std::mem::take(right));
            // The keys of USING must be columns.
            join.join_constraint = JoinConstraint::On;
            any = true;
        }
    }
    Transformed::new_transformed(LogicalPlan::Join(join), any)
}

fn holds_float(key: &Expr, schema: &DFSchema) -> bool {
    key.holds(&mut |part| is_float(part, schema)).unwrap_or(true)
}

/// A key of GROUP BY, or its grouping sets.
fn group_key(key: Expr, schema: &DFSchema) -> Result<Expr> {
    match key {
        Expr::GroupingSet(sets) => Expr::GroupingSet(sets)
            .rewrite_down(&mut |part| match part {
                Expr::GroupingSet(_) => Ok(Transformed::no(part)),
                part => Ok(Transformed::new(
                    named(part, schema),
                    true,
                    datafusion::common::tree_node::TreeNodeRecursion::Jump,
                )),
            })
            .data(),
        key => Ok(named(key, schema)),
    }
}

/// A key without the sign of zero, under the name that it had.
fn named(key: Expr, schema: &DFSchema) -> Expr {
    if !is_float(&key, schema) {
        return key;
    }
    let (relation, name) = key.qualified_name();
    match key {
        Expr::Alias(alias) => unsigned(*alias.expr).alias_qualified(alias.relation, alias.name),
        key => unsigned(key).alias_qualified(relation, name),
    }
}

/// The function that takes the sign off a zero, and off what is not a number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unsigned(Signature);

impl ScalarUDFImpl for Unsigned {
    fn name(&self) -> &'static str {
        "unsigned_zero"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &call.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(without_sign(array))),
            ColumnarValue::Scalar(value) => {
                let made = without_sign(&value.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?))
            }
        }
    }
}

fn without_sign(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => {
            let numbers = values.as_primitive::<Float64Type>();
            Arc::new(numbers.unary::<_, Float64Type>(|n| if n.is_nan() { f64::NAN } else { n + 0.0 }))
        }
        DataType::Float32 => {
            let numbers = values.as_primitive::<Float32Type>();
            Arc::new(numbers.unary::<_, Float32Type>(|n| if n.is_nan() { f32::NAN } else { n + 0.0 }))
        }
        _ => values.clone(),
    }
}
