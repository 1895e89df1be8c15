//! How much a function may make out of its arguments, and how long that may take, before it runs.
//!
//! Most functions make about as much as they take ([`Growth::Linear`]). The others have a model of their own. A model
//! may say too much, and then the rows go through the function in smaller slices. It must not say too little.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, kernels::length::length};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

use crate::limits::{GROWING_FUNCTION_WEIGHT, PATTERN_STATES_MAX, TEXT_FUNCTION_WEIGHT};

use super::concatenation::CONCATENATION;

/// Bytes of a value without a length. A value with a length takes them beside its own bytes.
pub(super) const VALUE_BYTES: u128 = 16;

/// How the size of a function's result follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// All arguments together, times this. Upper case triples a text at most, and hexadecimal digits double it.
    Linear(u128),
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
    /// Elements with a text between them: `array_to_string(list, text)`.
    Join,
    /// A list in which a value takes the place of elements: `array_replace(list, from, to)`.
    ReplaceElements,
    /// A time in a format: `to_char(time, format)`.
    Format,
    /// The groups of a pattern, one inside another: `regexp_match(text, pattern)`.
    Groups,
}

impl Growth {
    /// The weight of a call in a statement. Planning runs functions over constants before any memory is counted.
    fn weight(self) -> u64 {
        match self {
            Growth::Replace | Growth::Concat => TEXT_FUNCTION_WEIGHT,
            Growth::Repeat | Growth::Pad | Growth::Range | Growth::RepeatValue | Growth::Resize => {
                GROWING_FUNCTION_WEIGHT
            }
            _ => 0,
        }
    }

    /// The model of a function.
    pub(super) fn of(name: &str) -> Growth {
        if name == CONCATENATION {
            return Growth::Concat;
        }
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        let known = GROWING.iter().find(|(growing, _)| *growing == name);
        known.map_or(Growth::Linear(LINEAR), |(_, growth)| *growth)
    }
}

/// The usual factor of [`Growth::Linear`].
const LINEAR: u128 = 4;

/// Upper bounds of the result of a call.
#[derive(Clone, Copy, Default)]
pub(super) struct Made {
    pub(super) values: u128,
    pub(super) bytes: u128,
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
    ("array_to_string", Growth::Join),
    ("array_replace", Growth::ReplaceElements),
    ("array_replace_n", Growth::ReplaceElements),
    ("array_replace_all", Growth::ReplaceElements),
    ("to_char", Growth::Format),
    ("regexp_match", Growth::Groups),
    // Each character may become an element, with an offset of 4 bytes in a buffer that doubles when it is full.
    ("string_to_array", Growth::Linear(12)),
];

/// Other names of the functions above.
const ALIASES: &[(&str, &str)] = &[
    ("list_repeat", "array_repeat"),
    ("list_resize", "array_resize"),
    ("list_to_string", "array_to_string"),
    ("array_join", "array_to_string"),
    ("list_join", "array_to_string"),
    ("list_replace", "array_replace"),
    ("list_replace_n", "array_replace_n"),
    ("list_replace_all", "array_replace_all"),
    ("date_format", "to_char"),
    ("string_to_list", "string_to_array"),
];

/// Whether a function has a model of its own.
pub(super) fn is_known(name: &str) -> bool {
    GROWING.iter().any(|(known, _)| *known == name) || ALIASES.iter().any(|(known, _)| *known == name)
}

/// The names of all functions that have a model of their own.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GROWING.iter().map(|(name, _)| *name)
}

/// The weight of a call of this function in a statement.
pub fn weight(name: &str) -> u64 {
    let name = name.to_lowercase();
    if is_known(&name) { Growth::of(&name).weight() } else { 0 }
}

/// How the time of a call follows from its arguments, if not from their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Every byte is looked at a few times.
    Linear,
    /// Every character of the one with every character of the other: `levenshtein(a, b)`, `btrim(text, characters)`.
    Characters,
    /// Every element of the one with every element of the other: `array_has_any(a, b)`.
    Elements,
    /// Every byte with every state of a pattern: `regexp_match(text, pattern)`.
    Pattern,
}

/// The steps that a row takes.
type Steps = Box<dyn Fn(usize) -> u128>;

impl Work {
    pub(super) fn of(name: &str) -> Work {
        match name {
            "levenshtein" | "btrim" | "trim" | "ltrim" | "rtrim" | "translate" | "find_in_set" => {
                Work::Characters
            }
            "array_has_any" | "array_has_all" | "list_has_any" | "list_has_all" | "arrays_overlap" => {
                Work::Elements
            }
            _ if name.starts_with("regexp_") => Work::Pattern,
            _ => Work::Linear,
        }
    }

    /// A function that maps a row to its steps, if they are not those of [`Work::Linear`].
    pub(super) fn each(self, args: &[ColumnarValue]) -> Result<Option<Steps>> {
        let product = |a: Vec<u128>, b: Vec<u128>| -> Option<Steps> {
            Some(Box::new(move |row| at(&a, row).saturating_mul(at(&b, row))))
        };
        let [first, second, ..] = args else { return Ok(None) };
        Ok(match self {
            Work::Linear => None,
            Work::Characters => product(lengths(first)?, lengths(second)?),
            Work::Elements => product(elements(first)?, elements(second)?),
            Work::Pattern => product(lengths(first)?, states(second)?),
        })
    }
}

/// The states of each pattern, about: its length times its counts, such as that of `a{1000}`. The library that runs
/// patterns bounds them by the memory of a compiled pattern.
fn states(patterns: &ColumnarValue) -> Result<Vec<u128>> {
    let states = |pattern: Option<&str>| {
        let pattern = pattern.unwrap_or_default();
        let counts = pattern.split('{').skip(1).filter_map(|rest| {
            let count = rest.split('}').next().unwrap_or_default();
            count.split(',').filter_map(|number| number.trim().parse::<u128>().ok()).max()
        });
        let length = pattern.len() as u128 + 1;
        counts.fold(length, |states, count| states.saturating_mul(count.max(1))).min(PATTERN_STATES_MAX)
    };
    texts(patterns, states)
}

/// Maps each text of a column.
fn texts(column: &ColumnarValue, map: impl Fn(Option<&str>) -> u128) -> Result<Vec<u128>> {
    if let ColumnarValue::Scalar(value) = column {
        return Ok(vec![map(value.try_as_str().flatten())]);
    }
    let array = cast(&column.to_array(1)?, &DataType::LargeUtf8)?;
    Ok(array.as_string::<i64>().iter().map(map).collect())
}

/// A function that maps a row to the bounds of its result. `name` is that of the function.
pub(super) fn each(name: &str, growth: Growth, args: &[ColumnarValue]) -> Result<Box<dyn Fn(usize) -> Made>> {
    let text = |index: usize| args.get(index).map_or(Ok(Vec::new()), lengths);
    let number = |index: usize| args.get(index).map_or(Ok(Vec::new()), numbers);
    let size = |index: usize| args.get(index).map_or(Ok(Vec::new()), value_sizes);
    let made: Box<dyn Fn(usize) -> u128> = match growth {
        Growth::Range => return range(args),
        Growth::Resize => return resize(args),
        Growth::Linear(factor) => {
            let sizes = args.iter().map(value_sizes).collect::<Result<Vec<_>>>()?;
            // A digest of a short text is longer than the text.
            Box::new(move |row| factor * sizes.iter().map(|size| at(size, row)).sum::<u128>() + 128)
        }
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
            let pattern = name == "regexp_replace";
            Box::new(move |row| {
                // A pattern may match everywhere. The empty text does.
                let from = if pattern { 1 } else { at(&from, row).max(1) };
                (at(&text, row) / from + 1).saturating_mul(at(&to, row)) + at(&text, row)
            })
        }
        Growth::Concat => {
            let texts = args.iter().map(lengths).collect::<Result<Vec<_>>>()?;
            let separators = if name == "concat_ws" { texts.len() as u128 } else { 0 };
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
        Growth::Join => {
            let (list, elements) = (size(0)?, args.first().map_or(Ok(Vec::new()), all_elements)?);
            let (between, null) = (text(1)?, text(2)?);
            Box::new(move |row| {
                let each = at(&between, row) + at(&null, row);
                2 * at(&list, row) + at(&elements, row).saturating_mul(each)
            })
        }
        Growth::ReplaceElements => {
            let (list, elements) = (size(0)?, args.first().map_or(Ok(Vec::new()), elements)?);
            let to = size(2)?;
            Box::new(move |row| at(&list, row) + at(&elements, row).saturating_mul(at(&to, row)))
        }
        Growth::Format => {
            let format = text(1)?;
            // The longest expansion is that of `%+`: 35 characters.
            Box::new(move |row| 20 * at(&format, row))
        }
        Growth::Groups => {
            let count = |pattern: Option<&str>| pattern.unwrap_or_default().matches('(').count() as u128 + 1;
            let (text, groups) = (text(0)?, args.get(1).map_or(Ok(Vec::new()), |arg| texts(arg, count))?);
            Box::new(move |row| at(&text, row).saturating_mul(at(&groups, row)))
        }
    };
    Ok(Box::new(move |row| Made { values: 0, bytes: made(row) + VALUE_BYTES }))
}

fn range(args: &[ColumnarValue]) -> Result<Box<dyn Fn(usize) -> Made>> {
    let numbers = args.iter().map(numbers).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row| {
        let number = |index: usize| numbers.get(index).and_then(|column| at(column, row));
        let (from, to) = if numbers.len() == 1 { (Some(0), number(0)) } else { (number(0), number(1)) };
        let step = if numbers.len() < 3 { 1 } else { number(2).unwrap_or(1) };
        let values = match (from, to) {
            (Some(from), Some(to)) => from.abs_diff(to) / step.unsigned_abs().max(1) + 1,
            _ => 0,
        };
        Made { values, bytes: values.saturating_mul(8) }
    }))
}

fn resize(args: &[ColumnarValue]) -> Result<Box<dyn Fn(usize) -> Made>> {
    let lists = args.first().map_or(Ok(Vec::new()), elements)?;
    let counts = args.get(1).map_or(Ok(Vec::new()), numbers)?;
    let values = args.get(2).map_or(Ok(vec![VALUE_BYTES]), value_sizes)?;
    Ok(Box::new(move |row| {
        let count = positive(at(&counts, row));
        let more = count.saturating_sub(at(&lists, row));
        Made { values: count, bytes: more.saturating_mul(at(&values, row)) }
    }))
}

/// The bytes that a copy of each value takes. A constant has one value.
pub(super) fn value_sizes(column: &ColumnarValue) -> Result<Vec<u128>> {
    match column {
        ColumnarValue::Array(array) => sizes(array),
        ColumnarValue::Scalar(value) => match text_length(value) {
            Some(length) => Ok(vec![VALUE_BYTES + length]),
            None => sizes(&value.to_array()?),
        },
    }
}

/// The length of a constant text, without a copy of it.
fn text_length(value: &ScalarValue) -> Option<u128> {
    let length = match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len)
        }
        ScalarValue::Binary(bytes)
        | ScalarValue::LargeBinary(bytes)
        | ScalarValue::BinaryView(bytes)
        | ScalarValue::FixedSizeBinary(_, bytes) => bytes.as_ref().map_or(0, Vec::len),
        _ => return None,
    };
    Some(length as u128)
}

/// The value of a column in a row. A constant has the same value in each row, and a missing argument has the default.
pub(super) fn at<T: Copy + Default>(column: &[T], row: usize) -> T {
    let index = if column.len() == 1 { 0 } else { row };
    column.get(index).copied().unwrap_or_default()
}

fn positive(number: Option<i128>) -> u128 {
    number.and_then(|number| u128::try_from(number).ok()).unwrap_or(0)
}

/// The number of elements of each list. A value that is no list has none.
fn elements(column: &ColumnarValue) -> Result<Vec<u128>> {
    let array = array(column)?;
    if !matches!(array.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
    {
        return Ok(vec![0; array.len()]);
    }
    whole(&length(&array)?)
}

/// The number of elements of each list and of the lists in it, at most.
fn all_elements(column: &ColumnarValue) -> Result<Vec<u128>> {
    let sizes = value_sizes(column)?;
    // The smallest element takes [`VALUE_BYTES`].
    Ok(sizes.into_iter().map(|size| size / VALUE_BYTES).collect())
}

/// The values of a column. A constant has one.
fn array(column: &ColumnarValue) -> Result<ArrayRef> {
    match column {
        ColumnarValue::Array(array) => Ok(array.clone()),
        ColumnarValue::Scalar(value) => value.to_array(),
    }
}

/// The bytes that a copy of each value takes, including its children.
pub fn sizes(array: &dyn Array) -> Result<Vec<u128>> {
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
fn lengths(column: &ColumnarValue) -> Result<Vec<u128>> {
    if let ColumnarValue::Scalar(value) = column {
        return Ok(vec![text_length(value).unwrap_or(VALUE_BYTES)]);
    }
    let array = array(column)?;
    if !array.data_type().is_string() && !array.data_type().is_binary() {
        return Ok(vec![VALUE_BYTES; array.len()]);
    }
    whole(&length(&array)?)
}

fn whole(lengths: &ArrayRef) -> Result<Vec<u128>> {
    let lengths = cast(lengths, &DataType::Int64)?;
    let lengths = lengths.as_primitive::<Int64Type>();
    Ok(lengths.iter().map(|length| length.and_then(|l| u128::try_from(l).ok()).unwrap_or(0)).collect())
}

/// Reads each value as a whole number. A date, a timestamp or an interval becomes its nanoseconds. Other types allow no
/// bound and count as absent.
fn numbers(column: &ColumnarValue) -> Result<Vec<Option<i128>>> {
    use arrow::array::types::IntervalMonthDayNanoType;
    let array = &array(column)?;
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
