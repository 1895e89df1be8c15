//! The operator `||` as a function.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as Evaluated, Column};

/// The name of the operator's function.
pub(super) const CONCATENATION: &str = "||";

/// The operator `||` as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Default for Concatenation {
    fn default() -> Concatenation {
        Concatenation { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        CONCATENATION
    }

    /// The name of a column without an alias stays that of the operator.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let operator =
            BinaryExpr::new(args[0].clone().into(), Operator::StringConcat, args[1].clone().into());
        Ok(Expr::BinaryExpr(operator).schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        BinaryTypeCoercer::new(&types[0], &Operator::StringConcat, &types[1]).get_result_type()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = call.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { call.number_rows };
        let arrays = call.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let field = |(name, array): (&str, &arrow::array::ArrayRef)| {
            Field::new(name, array.data_type().clone(), true)
        };
        let schema =
            Arc::new(Schema::new(["left", "right"].into_iter().zip(&arrays).map(field).collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)?;
        let side = |name, index| Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>;
        let operator = Evaluated::new(side("left", 0), Operator::StringConcat, side("right", 1));
        let made = operator.evaluate(&batch)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made.into_array(rows)?, 0)?)),
            false => Ok(made),
        }
    }
}
