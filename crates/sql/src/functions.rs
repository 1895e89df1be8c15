//! Functions that make much out of little, bounded: what `repeat` or `range` would allocate is worked out before
//! they run, because an allocation that fails ends the process, and the memory of functions is not the engine's
//! to count. Planning runs functions over constants too, so this holds before a statement even starts.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, kernels::length::length};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::limits::{FUNCTION_BYTES_MAX, FUNCTION_VALUES_MAX};

/// How the size of a function's result follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// Text times a count: `repeat(text, n)`.
    Repeat,
    /// A width: `lpad(text, n)`.
    Pad,
    /// Text with pieces replaced: `replace(text, from, to)`.
    Replace,
    /// All arguments together.
    Concat,
    /// A count of numbers: `range(from, to, step)`.
    Range,
    /// A value times a count: `array_repeat(value, n)`.
    RepeatValue,
    /// A count of elements: `array_resize(list, n)`.
    Resize,
}

const GROWING: &[(&str, Growth)] = &[
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("replace", Growth::Replace),
    ("regexp_replace", Growth::Replace),
    ("concat", Growth::Concat),
    ("concat_ws", Growth::Concat),
    ("range", Growth::Range),
    ("generate_series", Growth::Range),
    ("array_repeat", Growth::RepeatValue),
    ("array_resize", Growth::Resize),
];

/// Puts the bounded functions in the place of the engine's.
///
/// # Errors
/// When the engine does not have one of them: a newer engine, whose functions must be looked at again.
pub(crate) fn bound(state: &mut SessionState) -> Result<()> {
    for (name, growth) in GROWING {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, growth: *growth })))?;
    }
    Ok(())
}

/// A function of the engine that refuses to make too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let (made, allowed, unit) = match self.growth {
            Growth::Range | Growth::Resize => (self.values(&arrays, rows)?, FUNCTION_VALUES_MAX, "values"),
            _ => (self.bytes(&arrays, rows)?, FUNCTION_BYTES_MAX, "bytes"),
        };
        if made > u128::from(allowed) {
            return Err(resources_datafusion_err!(
                "'{}' would make up to {made} {unit} at once; at most {allowed} are allowed",
                self.name()
            ));
        }
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    /// Values that the call makes.
    fn values(&self, args: &[ArrayRef], rows: usize) -> Result<u128> {
        let numbers = args.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        let at = |index: usize, row: usize| {
            numbers.get(index).and_then(|column| column.get(row)).copied().flatten()
        };
        let one = |row: usize| -> u128 {
            if self.growth == Growth::Resize {
                return positive(at(1, row));
            }
            let (from, to) = if args.len() == 1 { (Some(0), at(0, row)) } else { (at(0, row), at(1, row)) };
            let step = if args.len() < 3 { 1 } else { at(2, row).unwrap_or(1) };
            match (from, to) {
                (Some(from), Some(to)) => from.abs_diff(to) / step.unsigned_abs().max(1) + 1,
                _ => 0,
            }
        };
        Ok((0..rows).map(one).fold(0, u128::saturating_add))
    }

    /// Bytes that the call makes.
    fn bytes(&self, args: &[ArrayRef], rows: usize) -> Result<u128> {
        let text = |index: usize| args.get(index).map_or(Ok(Vec::new()), lengths);
        let number = |index: usize| args.get(index).map_or(Ok(Vec::new()), numbers);
        let each: Box<dyn Fn(usize) -> u128> = match self.growth {
            Growth::Repeat => {
                let (text, count) = (text(0)?, number(1)?);
                Box::new(move |row| get(&text, row) * positive(get_number(&count, row)))
            }
            Growth::Pad => {
                let width = number(1)?;
                // A character has at most four bytes.
                Box::new(move |row| 4 * positive(get_number(&width, row)))
            }
            Growth::Replace => {
                let (text, from, to) = (text(0)?, text(1)?, text(2)?);
                let pattern = self.name() == "regexp_replace";
                Box::new(move |row| {
                    // A pattern may match everywhere, and so does the empty text.
                    let from = if pattern { 1 } else { get(&from, row).max(1) };
                    (get(&text, row) / from + 1) * get(&to, row) + get(&text, row)
                })
            }
            Growth::Concat => {
                let texts = args.iter().map(lengths).collect::<Result<Vec<_>>>()?;
                let separators = texts.len() as u128;
                Box::new(move |row| {
                    let separator = texts.first().map_or(0, |first| get(first, row));
                    texts.iter().map(|text| get(text, row)).sum::<u128>() + separator * separators
                })
            }
            _ => {
                let size =
                    args.first().map_or(0, |arg| arg.get_array_memory_size() / arg.len().max(1)) as u128;
                let count = number(1)?;
                Box::new(move |row| size * positive(get_number(&count, row)))
            }
        };
        Ok((0..rows).map(each).fold(0, u128::saturating_add))
    }
}

fn get(lengths: &[u128], row: usize) -> u128 {
    lengths.get(row).copied().unwrap_or(0)
}

fn get_number(numbers: &[Option<i128>], row: usize) -> Option<i128> {
    numbers.get(row).copied().flatten()
}

fn positive(number: Option<i128>) -> u128 {
    number.and_then(|number| u128::try_from(number).ok()).unwrap_or(0)
}

/// The bytes of each text; 16 for what is no text.
fn lengths(array: &ArrayRef) -> Result<Vec<u128>> {
    if !array.data_type().is_string() && !array.data_type().is_binary() {
        return Ok(vec![16; array.len()]);
    }
    let lengths = cast(&length(array)?, &DataType::Int64)?;
    let lengths = lengths.as_primitive::<Int64Type>();
    Ok(lengths.iter().map(|length| length.and_then(|l| u128::try_from(l).ok()).unwrap_or(0)).collect())
}

/// Whole numbers; a date or a time as its number, an interval as the number of its smallest parts. What is
/// neither has no bound to work out and counts as absent.
fn numbers(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    use arrow::array::types::IntervalMonthDayNanoType;
    if let DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) = array.data_type() {
        let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
        const DAY: i128 = 86_400_000_000_000;
        let nanos = |i: arrow::datatypes::IntervalMonthDayNano| {
            (i128::from(i.months) * 28 + i128::from(i.days)) * DAY + i128::from(i.nanoseconds)
        };
        return Ok(intervals.iter().map(|interval| interval.map(nanos)).collect());
    }
    match array.data_type() {
        // In nanoseconds too, so that they can be divided by an interval.
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            let seconds = cast(array, &DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None))?;
            let seconds = cast(&seconds, &DataType::Int64)?;
            let seconds = seconds.as_primitive::<Int64Type>();
            Ok(seconds.iter().map(|s| s.map(|s| i128::from(s) * 1_000_000_000)).collect())
        }
        other if other.is_integer() => {
            let whole = cast(array, &DataType::Int64)?;
            Ok(whole.as_primitive::<Int64Type>().iter().map(|n| n.map(i128::from)).collect())
        }
        _ => Ok(vec![None; array.len()]),
    }
}
