//! `+`, `-`, `*` and the sign of whole numbers. The engine's own operators wrap around at the end of their range; a
//! wrapped number is an error here (SQL:2016, data exception 22003).

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, neg, sub};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::walk;

/// Replaces arithmetic of whole numbers by functions that check.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &is_arithmetic, &checked)
    }

    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }
}

fn is_arithmetic(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => Arithmetic::of(*op).is_some(),
        other => matches!(other, Expr::Negative(_)),
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if Arithmetic::of(op).is_some()
                && is_whole(&left, schema)
                && left.get_type(schema)? == right.get_type(schema)? =>
        {
            let made = Arithmetic::of(op).map(|arithmetic| arithmetic.call(vec![*left, *right]));
            Ok(made
                .map_or_else(|| internal_err!("the operator was known"), |made| Ok(Transformed::yes(made)))?)
        }
        Expr::Negative(value) if is_whole(&value, schema) => {
            Ok(Transformed::yes(Arithmetic::Negate.call(vec![*value])))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_whole(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_integer())
}

/// A checked operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Arithmetic {
    fn of(operator: Operator) -> Option<Arithmetic> {
        match operator {
            Operator::Plus => Some(Arithmetic::Add),
            Operator::Minus => Some(Arithmetic::Subtract),
            Operator::Multiply => Some(Arithmetic::Multiply),
            _ => None,
        }
    }

    fn call(self, args: Vec<Expr>) -> Expr {
        let arguments = if self == Arithmetic::Negate { 1 } else { 2 };
        let signature = Signature::any(arguments, Volatility::Immutable);
        ScalarUDF::new_from_impl(Checked { arithmetic: self, signature }).call(args)
    }

    /// The same operation of the engine.
    fn plain(self, args: &[Expr]) -> Expr {
        let binary =
            |op| Expr::BinaryExpr(BinaryExpr::new(args[0].clone().into(), op, args[1].clone().into()));
        match self {
            Arithmetic::Add => binary(Operator::Plus),
            Arithmetic::Subtract => binary(Operator::Minus),
            Arithmetic::Multiply => binary(Operator::Multiply),
            Arithmetic::Negate => Expr::Negative(args[0].clone().into()),
        }
    }

    fn apply(self, args: &[Box<dyn Datum>]) -> Result<ArrayRef> {
        Ok(match self {
            Arithmetic::Add => add(args[0].as_ref(), args[1].as_ref())?,
            Arithmetic::Subtract => sub(args[0].as_ref(), args[1].as_ref())?,
            Arithmetic::Multiply => mul(args[0].as_ref(), args[1].as_ref())?,
            Arithmetic::Negate => neg(args[0].get().0)?,
        })
    }
}

/// The function of an operation.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    arithmetic: Arithmetic,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.arithmetic {
            Arithmetic::Add => "checked_add",
            Arithmetic::Subtract => "checked_subtract",
            Arithmetic::Multiply => "checked_multiply",
            Arithmetic::Negate => "checked_negate",
        }
    }

    /// The name of a column without an alias stays that of the operation.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.arithmetic.plain(args).schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = call.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let args = call.args.into_iter().map(|arg| match arg {
            ColumnarValue::Array(array) => Ok(Box::new(array) as Box<dyn Datum>),
            ColumnarValue::Scalar(value) => Ok(Box::new(value.to_scalar()?) as Box<dyn Datum>),
        });
        let made = self.arithmetic.apply(&args.collect::<Result<Vec<_>>>()?)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}
