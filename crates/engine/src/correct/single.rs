//! Single functions of the engine that answer wrongly, each with its reason.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use crate::wrapped::from_inner;

/// What is wrong with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// Its rules for the simplifier forget NULL: `log(x, 1)` is 0, but NULL where `x` is NULL.
    Simplified,
    /// It takes NULL for an empty text.
    ForgetsNull,
    /// `replace(text, '', to)` puts `to` between all characters. There is nothing to replace (PostgreSQL, DuckDB).
    EmptyPattern,
}

/// A function of the engine without its fault.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Mended {
    inner: Arc<ScalarUDF>,
    fault: Fault,
}

impl Mended {
    pub(super) fn over(inner: Arc<ScalarUDF>, fault: Fault) -> ScalarUDF {
        ScalarUDF::new_from_impl(Mended { inner, fault })
    }
}

impl ScalarUDFImpl for Mended {
    from_inner!(name, aliases, signature, return_type, return_field_from_args, coerce_types, documentation);

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.fault {
            Fault::Simplified => self.inner.invoke_with_args(call),
            Fault::EmptyPattern => self.replace(call),
            Fault::ForgetsNull => self.strict(call),
        }
    }
}

impl Mended {
    /// NULL in, NULL out.
    fn strict(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = call.number_rows;
        let mut nulls: Option<NullBuffer> = None;
        for arg in &call.args {
            nulls = NullBuffer::union(nulls.as_ref(), arg.to_array(rows)?.logical_nulls().as_ref());
        }
        let made = self.inner.invoke_with_args(call)?;
        let Some(nulls) = nulls else { return Ok(made) };
        let known = BooleanArray::new(nulls.inner().clone(), None);
        let made = made.into_array(rows)?;
        let null = new_null_array(made.data_type(), 1);
        Ok(ColumnarValue::Array(zip(&known, &made, &Scalar::new(null))?))
    }

    fn replace(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (text, rows) = (call.args[0].clone(), call.number_rows);
        let empty = is_empty(&call.args[1].to_array(rows)?)?;
        let made = self.inner.invoke_with_args(call)?;
        if empty.true_count() == 0 {
            return Ok(made);
        }
        let made = made.into_array(rows)?;
        let text = cast(&text.to_array(rows)?, made.data_type())?;
        Ok(ColumnarValue::Array(zip(&empty, &text, &made)?))
    }
}

fn is_empty(texts: &ArrayRef) -> Result<BooleanArray> {
    let texts = cast(texts, &DataType::LargeUtf8)?;
    Ok(texts.as_string::<i64>().iter().map(|text| Some(text == Some(""))).collect())
}
