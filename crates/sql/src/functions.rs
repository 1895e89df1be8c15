//! Bounds functions whose result is much larger than their arguments, such as `repeat` and `range`.
//!
//! The size of the result is computed before the function runs. A failed allocation ends the process, and the engine
//! does not count the memory of functions. Planning runs functions over constants, too, so the bound already holds
//! before a statement starts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, kernels::length::length};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, internal_err, resources_datafusion_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use crate::limits::{FUNCTION_BYTES_MAX, FUNCTION_VALUES_MAX, GROWING_FUNCTION_WEIGHT, TEXT_FUNCTION_WEIGHT};
use crate::wrapped::from_inner;

/// Bytes of a value without a length. A value with a length takes them beside its own bytes.
const VALUE_BYTES: u128 = 16;

/// How the size of a function's result follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// Text times a count: `repeat(text, n)`.
    Repeat,
    /// A width: `lpad(text, n)`.
    Pad,
    /// Text with pieces replaced: `replace(text, from, to)`.
    Replace,
    /// All arguments together: `concat(a, b)`.
    Concat,
    /// A count of numbers: `range(from, to, step)`.
    Range,
    /// A value times a count: `array_repeat(value, n)`.
    RepeatValue,
    /// A count of elements. The new ones are copies of a value: `array_resize(list, n, value)`.
    Resize,
}

impl Growth {
    /// The weight of a call in a statement. Each call may make [`FUNCTION_BYTES_MAX`] for every batch.
    fn weight(self) -> u64 {
        match self {
            Growth::Replace | Growth::Concat => TEXT_FUNCTION_WEIGHT,
            _ => GROWING_FUNCTION_WEIGHT,
        }
    }
}

/// Upper bounds of the result of a call.
#[derive(Clone, Copy, Default)]
struct Made {
    values: u128,
    bytes: u128,
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

/// Other names of the functions above.
const ALIASES: &[(&str, &str)] = &[("list_repeat", "array_repeat"), ("list_resize", "array_resize")];

/// The weight of a call of this function in a statement; zero for a function that needs no bound.
pub(crate) fn weight(name: &str) -> u64 {
    let name = name.to_lowercase();
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(&*name, |(_, name)| name);
    GROWING.iter().find(|(growing, _)| *growing == name).map_or(0, |(_, growth)| growth.weight())
}

/// Replaces the engine's functions with bounded ones.
///
/// # Errors
/// The engine lacks one of the functions, or has one under a name that is not known here. Then it is a newer engine,
/// and its functions need a new review.
pub(crate) fn bound(state: &mut SessionState) -> Result<()> {
    for (name, growth) in GROWING {
        let inner = state.udf(name)?;
        if let Some(alias) = inner.aliases().iter().find(|alias| weight(alias) == 0) {
            return internal_err!("'{name}' has a name that is not bounded: '{alias}'");
        }
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, growth: *growth })))?;
    }
    Ok(())
}

/// A function of the engine that refuses a call whose result would be too large.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    from_inner!(name, aliases, signature, return_type, return_field_from_args, coerce_types, documentation);

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let made = self.made(&args)?;
        for (made, allowed, unit) in
            [(made.values, FUNCTION_VALUES_MAX, "values"), (made.bytes, FUNCTION_BYTES_MAX, "bytes")]
        {
            if made > u128::from(allowed) {
                return Err(resources_datafusion_err!(
                    "'{}' would make up to {made} {unit} at once; at most {allowed} are allowed",
                    self.name()
                ));
            }
        }
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    /// The bounds of the result over all rows.
    fn made(&self, call: &ScalarFunctionArgs) -> Result<Made> {
        let is_constant = |arg: &&ColumnarValue| matches!(arg, ColumnarValue::Scalar(_));
        let constant = call.args.iter().all(|arg| is_constant(&arg));
        let rows = if constant { 1 } else { call.number_rows };
        // A constant stays one value here. The engine copies it for every row, and the loop below counts the copies.
        let arrays = call.args.iter().map(|arg| match arg {
            ColumnarValue::Array(array) => Ok(array.clone()),
            ColumnarValue::Scalar(value) => value.to_array_of_size(1),
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let mut all = Made::default();
        if !constant {
            for (array, _) in arrays.iter().zip(&call.args).filter(|(_, arg)| is_constant(arg)) {
                let copies = at(&sizes(array)?, 0).saturating_mul(rows as u128);
                all.bytes = all.bytes.saturating_add(copies);
            }
        }
        let each = self.each(&arrays)?;
        for made in (0..rows).map(each) {
            all.values = all.values.saturating_add(made.values);
            all.bytes = all.bytes.saturating_add(made.bytes);
        }
        Ok(all)
    }

    /// A function that maps a row to the bounds of its result.
    fn each(&self, args: &[ArrayRef]) -> Result<Box<dyn Fn(usize) -> Made>> {
        let text = |index: usize| args.get(index).map_or(Ok(Vec::new()), lengths);
        let number = |index: usize| args.get(index).map_or(Ok(Vec::new()), numbers);
        let size = |index: usize| args.get(index).map_or(Ok(Vec::new()), |arg| sizes(arg));
        let made: Box<dyn Fn(usize) -> u128> = match self.growth {
            Growth::Range => return self.range(args),
            Growth::Resize => return resize(args),
            Growth::Repeat => {
                let (text, count) = (text(0)?, number(1)?);
                Box::new(move |row| at(&text, row).saturating_mul(positive(at(&count, row))))
            }
            Growth::Pad => {
                let width = number(1)?;
                // A character has at most four bytes.
                Box::new(move |row| 4 * positive(at(&width, row)))
            }
            Growth::Replace => {
                let (text, from, to) = (text(0)?, text(1)?, text(2)?);
                let pattern = self.name() == "regexp_replace";
                Box::new(move |row| {
                    // A pattern may match everywhere. The empty text does.
                    let from = if pattern { 1 } else { at(&from, row).max(1) };
                    (at(&text, row) / from + 1) * at(&to, row) + at(&text, row)
                })
            }
            Growth::Concat => {
                let texts = args.iter().map(lengths).collect::<Result<Vec<_>>>()?;
                let separators = texts.len() as u128;
                Box::new(move |row| {
                    let separator = texts.first().map_or(0, |first| at(first, row));
                    texts.iter().map(|text| at(text, row)).sum::<u128>() + separator * separators
                })
            }
            Growth::RepeatValue => {
                // The engine writes an index of 8 bytes for each copy before it copies the value.
                let (size, count) = (size(0)?, number(1)?);
                Box::new(move |row| (at(&size, row) + 8).saturating_mul(positive(at(&count, row))))
            }
        };
        Ok(Box::new(move |row| Made { values: 0, bytes: made(row) }))
    }

    fn range(&self, args: &[ArrayRef]) -> Result<Box<dyn Fn(usize) -> Made>> {
        let numbers = args.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        Ok(Box::new(move |row| {
            let number = |index: usize| numbers.get(index).and_then(|column| at(column, row));
            let (from, to) = if numbers.len() == 1 { (Some(0), number(0)) } else { (number(0), number(1)) };
            let step = if numbers.len() < 3 { 1 } else { number(2).unwrap_or(1) };
            let values = match (from, to) {
                (Some(from), Some(to)) => from.abs_diff(to) / step.unsigned_abs().max(1) + 1,
                _ => 0,
            };
            Made { values, bytes: 0 }
        }))
    }
}

fn resize(args: &[ArrayRef]) -> Result<Box<dyn Fn(usize) -> Made>> {
    let lists = args.first().map_or(Ok(Vec::new()), elements)?;
    let counts = args.get(1).map_or(Ok(Vec::new()), numbers)?;
    let values = args.get(2).map_or(Ok(vec![VALUE_BYTES]), |value| sizes(value))?;
    Ok(Box::new(move |row| {
        let count = positive(at(&counts, row));
        let more = count.saturating_sub(at(&lists, row));
        Made { values: count, bytes: more.saturating_mul(at(&values, row)) }
    }))
}

/// The value of a column in a row. A constant has the same value in each row, and a missing argument has the default.
fn at<T: Copy + Default>(column: &[T], row: usize) -> T {
    let index = if column.len() == 1 { 0 } else { row };
    column.get(index).copied().unwrap_or_default()
}

fn positive(number: Option<i128>) -> u128 {
    number.and_then(|number| u128::try_from(number).ok()).unwrap_or(0)
}

/// The number of elements of each list. A value that is no list has none.
fn elements(array: &ArrayRef) -> Result<Vec<u128>> {
    if !matches!(array.data_type(), DataType::List(_) | DataType::LargeList(_)) {
        return Ok(vec![0; array.len()]);
    }
    whole(&length(array)?)
}

/// The bytes that a copy of each value takes, including its children.
fn sizes(array: &dyn Array) -> Result<Vec<u128>> {
    let index = |offset: i64| usize::try_from(offset).expect("an offset is not negative");
    match array.data_type() {
        kind if kind.is_string() || kind.is_binary() => {
            Ok(whole(&length(array)?)?.into_iter().map(|length| VALUE_BYTES + length).collect())
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            spans(list.values(), list.value_offsets().iter().map(|to| index((*to).into())))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            spans(list.values(), list.value_offsets().iter().map(|to| index(*to)))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            spans(&entries, map.value_offsets().iter().map(|to| index((*to).into())))
        }
        DataType::FixedSizeList(_, width) => {
            let (list, width) = (array.as_fixed_size_list(), index((*width).into()));
            spans(list.values(), (0..=list.len()).map(|row| row * width))
        }
        DataType::Struct(_) => {
            let mut all = vec![VALUE_BYTES; array.len()];
            for column in array.as_struct().columns() {
                all.iter_mut().zip(sizes(column)?).for_each(|(all, size)| *all += size);
            }
            Ok(all)
        }
        kind if kind.is_primitive() || matches!(kind, DataType::Boolean | DataType::Null) => {
            Ok(vec![VALUE_BYTES; array.len()])
        }
        // Rare types that refer to shared values. Each value takes at most the whole array.
        _ => Ok(vec![array.get_array_memory_size() as u128; array.len()]),
    }
}

/// The bytes of each list. `ends` begins with the start of the first list in `values`, then has the end of each list.
fn spans(values: &ArrayRef, mut ends: impl Iterator<Item = usize>) -> Result<Vec<u128>> {
    let values = sizes(values)?;
    let mut from = ends.next().unwrap_or(0);
    let size = |to| VALUE_BYTES + values[std::mem::replace(&mut from, to)..to].iter().sum::<u128>();
    Ok(ends.map(size).collect())
}

/// The bytes of each text. A value that is no text takes [`VALUE_BYTES`], as a number does.
fn lengths(array: &ArrayRef) -> Result<Vec<u128>> {
    if !array.data_type().is_string() && !array.data_type().is_binary() {
        return Ok(vec![VALUE_BYTES; array.len()]);
    }
    whole(&length(array)?)
}

fn whole(lengths: &ArrayRef) -> Result<Vec<u128>> {
    let lengths = cast(lengths, &DataType::Int64)?;
    let lengths = lengths.as_primitive::<Int64Type>();
    Ok(lengths.iter().map(|length| length.and_then(|l| u128::try_from(l).ok()).unwrap_or(0)).collect())
}

/// Reads each value as a whole number. A date, a timestamp or an interval becomes its nanoseconds. Other types allow no
/// bound and count as absent.
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
        // Nanoseconds, as for intervals, because `range` divides by an interval.
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
