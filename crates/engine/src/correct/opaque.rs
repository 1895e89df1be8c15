//! A function that returns its argument, and of which the engine knows nothing: not that its values are unique, and not
//! that they are never NULL.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The value as something unknown.
pub(super) fn opaque(value: Expr) -> Expr {
    ScalarUDF::new_from_impl(Opaque(Signature::any(1, Volatility::Immutable))).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque(Signature);

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &'static str {
        "opaque"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(call.args.swap_remove(0))
    }
}
