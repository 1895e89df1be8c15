//! Single functions of the engine that answer wrongly, each with its reason.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Scalar, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
};

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
    /// It multiplies by a power of ten. Where that is infinity or zero, its result is no number.
    FarPlaces,
    /// It gives NULL for times beyond those of nanoseconds.
    FarTimes,
    /// It makes texts of another type than all other functions: a view, which sorts count several times.
    MakesViews,
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
    from_inner!(name, aliases, signature, coerce_types, documentation);

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let made = self.inner.return_type(types)?;
        Ok(if self.fault == Fault::MakesViews { DataType::Utf8 } else { made })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let made = self.inner.return_field_from_args(args)?;
        match self.fault {
            Fault::MakesViews => Ok(Arc::new(made.as_ref().clone().with_data_type(DataType::Utf8))),
            _ => Ok(made),
        }
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.fault {
            Fault::Simplified => self.inner.invoke_with_args(call),
            Fault::EmptyPattern => self.replace(call),
            Fault::ForgetsNull => self.strict(call),
            Fault::FarPlaces => self.round(call),
            Fault::FarTimes => self.known(call),
            Fault::MakesViews => {
                let view = call.return_field.as_ref().clone().with_data_type(DataType::Utf8View);
                let made = self
                    .inner
                    .invoke_with_args(ScalarFunctionArgs { return_field: Arc::new(view), ..call })?;
                made.cast_to(&DataType::Utf8, None)
            }
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

impl Mended {
    /// NULL out of no NULL is an error.
    fn known(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (args, rows) = (call.args.clone(), call.number_rows);
        let made = self.inner.invoke_with_args(call)?;
        let known = |value: &ColumnarValue| {
            Ok::<_, DataFusionError>(
                value.to_array(rows)?.logical_nulls().unwrap_or_else(|| NullBuffer::new_valid(rows)),
            )
        };
        let mut asked = NullBuffer::new_valid(rows);
        for arg in &args {
            asked = NullBuffer::union(Some(&asked), Some(&known(arg)?)).unwrap_or(asked);
        }
        match known(&made)?.null_count() > asked.null_count() {
            true => exec_err!("{} reaches from 1677 to 2262; date_trunc knows all times", self.inner.name()),
            false => Ok(made),
        }
    }

    /// A float has no digits at places as far to the right as those, and is zero as far to the left. An infinity has no
    /// digits at all.
    fn round(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (args, rows) = (call.args.clone(), call.number_rows);
        let made = self.inner.invoke_with_args(call)?;
        let (number, Some(places)) = (&args[0], args.get(1)) else { return Ok(made) };
        if !number.data_type().is_floating() || !made.data_type().is_floating() {
            return Ok(made);
        }
        let floats = |value: &ColumnarValue| cast(&value.to_array(rows)?, &DataType::Float64);
        let (numbers, places) = (floats(number)?, cast(&places.to_array(rows)?, &DataType::Int64)?);
        let made_type = made.data_type();
        let rounded = floats(&made)?;
        let (numbers, rounded) =
            (numbers.as_primitive::<Float64Type>(), rounded.as_primitive::<Float64Type>());
        let far = numbers.iter().zip(rounded).zip(places.as_primitive::<Int64Type>()).map(
            |((number, rounded), places)| match (number?, rounded?, places?) {
                (number, _, _) if number.is_infinite() => Some(number),
                (number, rounded, 1..) if number.is_finite() && !rounded.is_finite() => Some(number),
                (number, rounded, ..=0) if number.is_finite() && rounded.is_nan() => Some(0.0),
                (_, rounded, _) => Some(rounded),
            },
        );
        let far: Float64Array = far.collect();
        Ok(ColumnarValue::Array(cast(&far, &made_type)?))
    }
}

fn is_empty(texts: &ArrayRef) -> Result<BooleanArray> {
    let texts = cast(texts, &DataType::LargeUtf8)?;
    Ok(texts.as_string::<i64>().iter().map(|text| Some(text == Some(""))).collect())
}
