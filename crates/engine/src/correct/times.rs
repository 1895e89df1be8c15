//! Times in microseconds, as in the tables. The engine's own types and functions count nanoseconds in 64 bits, which
//! begin in 1677 and end in 2262.

use std::sync::Arc;

use arrow::array::temporal_conversions::as_datetime;
use arrow::array::timezone::{Tz, TzOffset};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Date32Type, Field, FieldRef, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono::{Datelike, LocalResult, NaiveDate, Offset, TimeDelta, TimeZone};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, internal_err, plan_err};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::sql::sqlparser::ast::{DataType as Sql, TimezoneInfo};

use super::zones;
use crate::wrapped::from_inner;

/// Days from the first of January of the year 1 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_162;

/// No clocks skip more than this at a time, except that a few islands have once skipped a day.
const SKIPPED_MAX: TimeDelta = TimeDelta::hours(3);

/// Characters of a value that an error shows.
const SHOWN_CHARS: usize = 100;

/// The zone of every session, as the columns of tables have it.
const UTC: &str = "UTC";

/// The type of `TIMESTAMP`, and in a zone that of `now()` and `TIMESTAMP WITH TIME ZONE`.
pub(super) fn micros(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from))
}

/// Makes `TIMESTAMP` without a precision a type of microseconds.
#[derive(Debug)]
pub(super) struct MicrosecondTypes;

impl TypePlanner for MicrosecondTypes {
    fn plan_type_field(&self, kind: &Sql) -> Result<Option<FieldRef>> {
        match kind {
            Sql::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Ok(Some(Arc::new(Field::new("", micros(None), true))))
            }
            // The zone of every session. Without one, AT TIME ZONE would take the time for that of its zone.
            Sql::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                Ok(Some(Arc::new(Field::new("", micros(Some(UTC)), true))))
            }
            kind => Ok(zones::of(kind).map(|zone| Arc::new(Field::new("", micros(Some(zone)), true)))),
        }
    }
}

/// `now()` in microseconds of UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Now {
    inner: Arc<ScalarUDF>,
}

impl Now {
    pub(super) fn over(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(Now { inner })
    }
}

impl ScalarUDFImpl for Now {
    from_inner!(name, aliases, signature, documentation);

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(micros(Some(UTC)))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), micros(Some(UTC)), false)))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = info.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let now = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), Some(UTC.into()));
        Ok(ExprSimplifyResult::Simplified(lit(now)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("now() is a constant of its statement")
    }
}

/// `to_timestamp` in microseconds: of a text, of seconds since 1970, of a date.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToTimestamp {
    inner: Arc<ScalarUDF>,
    /// The engine's function that reads texts of a given format into microseconds.
    texts: Arc<ScalarUDF>,
}

impl ToTimestamp {
    pub(super) fn over(inner: Arc<ScalarUDF>, texts: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(ToTimestamp { inner, texts })
    }
}

impl ScalarUDFImpl for ToTimestamp {
    from_inner!(name, aliases, signature, documentation);

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(micros(None))
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = call.args.first() else { return plan_err!("to_timestamp takes a value") };
        if value.data_type().is_string() && call.args.len() > 1 {
            call.return_field = Arc::new(call.return_field.as_ref().clone().with_data_type(micros(None)));
            return self.texts.invoke_with_args(call);
        }
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let made = seconds_to_micros(&value.to_array(if constant { 1 } else { call.number_rows })?)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// `to_date` whose error says which text is no date.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToDate {
    inner: Arc<ScalarUDF>,
}

impl ToDate {
    pub(super) fn over(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(ToDate { inner })
    }
}

impl ScalarUDFImpl for ToDate {
    from_inner!(name, aliases, signature, return_type, documentation);

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (args, rows) = (call.args.clone(), call.number_rows);
        let made = self.inner.invoke_with_args(call);
        match (&made, args.as_slice()) {
            (Err(_), [value]) if value.data_type().is_string() => {
                let Some(text) = no_date(&value.to_array(rows)?)? else { return made };
                exec_err!(
                    "'{text}' is no date such as '2026-01-31'; name its format, as in to_date(x, '%d.%m.%Y'), or use \
                     TRY_CAST(x AS date), which makes it NULL"
                )
            }
            _ => made,
        }
    }
}

/// The first text that is no date.
fn no_date(texts: &ArrayRef) -> Result<Option<String>> {
    let texts = cast_with_options(texts, &DataType::LargeUtf8, &CastOptions::default())?;
    let mut texts = texts.as_string::<i64>().iter().flatten();
    let found = texts.find(|text| Date32Type::parse(text).is_none());
    Ok(found.map(|text| text.chars().take(SHOWN_CHARS).collect()))
}

/// Reads numbers as seconds since 1970, and other values, such as texts and dates, as what they are.
fn seconds_to_micros(values: &ArrayRef) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |values: &ArrayRef, kind: &DataType| cast_with_options(values, kind, &options);
    let kind = values.data_type().clone();
    if kind.is_integer() {
        let seconds = cast(values, &DataType::Int64)?;
        let micros =
            seconds.as_primitive::<Int64Type>().try_unary::<_, TimestampMicrosecondType, _>(|seconds| {
                seconds.checked_mul(1_000_000).ok_or_else(|| out_of_range(&format!("{seconds} s")))
            })?;
        return Ok(Arc::new(micros));
    }
    if kind.is_numeric() {
        let seconds = cast(values, &DataType::Float64)?;
        let micros = seconds
            .as_primitive::<Float64Type>()
            .try_unary::<_, TimestampMicrosecondType, _>(float_micros)?;
        return Ok(Arc::new(micros));
    }
    Ok(cast(values, &micros(None))?)
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn float_micros(seconds: f64) -> Result<i64> {
    let micros = (seconds * 1e6).round();
    // 2^63 is the first number that does not fit.
    match micros.abs() < 9_223_372_036_854_775_808.0 {
        true => Ok(micros as i64),
        false => Err(out_of_range(&format!("{seconds} s"))),
    }
}

fn out_of_range(what: &str) -> datafusion::error::DataFusionError {
    exec_datafusion_err!("{what} is out of the range of a timestamp")
}

/// `date_trunc` for all times that a table can hold.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl DateTrunc {
    pub(super) fn over(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(DateTrunc {
            inner,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}

impl ScalarUDFImpl for DateTrunc {
    from_inner!(name, aliases, documentation);

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [unit, value] = types else { return plan_err!("date_trunc takes a unit and a time") };
        if !unit.is_string() {
            return plan_err!("the unit of date_trunc is a text such as 'day', not {unit}");
        }
        match value {
            DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => {
                Ok(vec![DataType::Utf8, value.clone()])
            }
            kind if kind.is_string()
                || kind.is_null()
                || matches!(kind, DataType::Date32 | DataType::Date64) =>
            {
                Ok(vec![DataType::Utf8, micros(None)])
            }
            other => plan_err!("date_trunc takes a time, not {other}"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(unit) = &call.args[0] else {
            return exec_err!("the unit of date_trunc is a constant");
        };
        let (Some(Some(unit)), DataType::Timestamp(scale, zone)) =
            (unit.try_as_str(), call.args[1].data_type())
        else {
            return self.inner.invoke_with_args(call);
        };
        let zone = zone.filter(|zone| !matches!(&**zone, "UTC" | "+00:00" | "Z"));
        let begin = Begin { unit: Unit::named(unit)?, zone: zone.map(|zone| zone.parse()).transpose()? };
        let constant = matches!(call.args[1], ColumnarValue::Scalar(_));
        let values = call.args[1].to_array(if constant { 1 } else { call.number_rows })?;
        let made = match scale {
            TimeUnit::Second => begin.of_all::<TimestampSecondType>(&values, 1)?,
            TimeUnit::Millisecond => begin.of_all::<TimestampMillisecondType>(&values, 1_000)?,
            TimeUnit::Microsecond => begin.of_all::<TimestampMicrosecondType>(&values, 1_000_000)?,
            TimeUnit::Nanosecond => begin.of_all::<TimestampNanosecondType>(&values, 1_000_000_000)?,
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// `to_char` in the unit that a time has. The engine would convert it to nanoseconds first.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToChar {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ToChar {
    pub(super) fn over(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(ToChar { inner, signature: Signature::user_defined(Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for ToChar {
    from_inner!(name, aliases, return_type, documentation);

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, format] = types else { return plan_err!("to_char takes a time and a format") };
        if !format.is_string() && !format.is_null() {
            return plan_err!("the format of to_char is a text, not {format}");
        }
        if !value.is_temporal() {
            return plan_err!("to_char takes a time, not {value}; cast it");
        }
        Ok(vec![value.clone(), DataType::Utf8])
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // PostgreSQL's formats would be texts without a field here.
        if let ColumnarValue::Scalar(format) = &call.args[1]
            && let Some(Some(format)) = format.try_as_str()
            && !format.contains('%')
            && format.contains(char::is_alphabetic)
        {
            return exec_err!("to_char takes formats such as '%Y-%m-%d %H:%M:%S', not '{format}'");
        }
        self.inner.invoke_with_args(call)
    }
}

/// The beginning of a unit, by the clocks of a zone or of UTC.
struct Begin {
    unit: Unit,
    zone: Option<Tz>,
}

impl Begin {
    fn of_all<T: ArrowTimestampType>(&self, values: &ArrayRef, per_second: i64) -> Result<ArrayRef> {
        let values = values.as_primitive::<T>();
        let made: PrimitiveArray<T> = values.try_unary(|value| {
            self.of::<T>(value, per_second).ok_or_else(|| out_of_range("the beginning of the unit"))
        })?;
        Ok(Arc::new(made.with_timezone_opt(values.timezone().map(Arc::<str>::from))))
    }

    fn of<T: ArrowTimestampType>(&self, value: i64, per_second: i64) -> Option<i64> {
        let Some(zone) = self.zone else { return self.unit.truncate(value, per_second) };
        let ahead = |offset: &TzOffset| i64::from(offset.fix().local_minus_utc()) * per_second;
        let own = zone.offset_from_utc_datetime(&as_datetime::<T>(value)?);
        let local = self.unit.truncate(value.checked_add(ahead(&own))?, per_second)?;
        let clock = as_datetime::<T>(local)?;
        let offset = match zone.offset_from_local_datetime(&clock) {
            LocalResult::Single(offset) => offset,
            LocalResult::Ambiguous(one, other) => {
                if one.fix() == own.fix() {
                    one
                } else {
                    other
                }
            }
            // The clocks skip it. They still had the offset from before.
            LocalResult::None => {
                zone.offset_from_local_datetime(&clock.checked_sub_signed(SKIPPED_MAX)?).earliest()?
            }
        };
        local.checked_sub(ahead(&offset))
    }
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    /// A number of seconds.
    Seconds(i64),
    Week,
    /// A number of months.
    Months(u32),
}

impl Unit {
    fn named(name: &str) -> Result<Unit> {
        match name.to_lowercase().as_str() {
            "microsecond" => Ok(Unit::Microsecond),
            "millisecond" => Ok(Unit::Millisecond),
            "second" => Ok(Unit::Seconds(1)),
            "minute" => Ok(Unit::Seconds(60)),
            "hour" => Ok(Unit::Seconds(3_600)),
            "day" => Ok(Unit::Seconds(86_400)),
            "week" => Ok(Unit::Week),
            "month" => Ok(Unit::Months(1)),
            "quarter" => Ok(Unit::Months(3)),
            "year" => Ok(Unit::Months(12)),
            other => exec_err!(
                "date_trunc knows no unit '{other}', but microsecond, millisecond, second, minute, hour, day, week, \
                 month, quarter and year"
            ),
        }
    }

    /// The beginning of the unit that holds `value`. `per_second` is the scale of both.
    fn truncate(self, value: i64, per_second: i64) -> Option<i64> {
        let floor = |size: i64| value.checked_sub(value.rem_euclid(size.max(1)));
        let day = 86_400 * per_second;
        let days = value.div_euclid(day);
        let first = match self {
            Unit::Microsecond => return floor(per_second / 1_000_000),
            Unit::Millisecond => return floor(per_second / 1_000),
            Unit::Seconds(seconds) => return floor(seconds * per_second),
            // The first of January 1970 was a Thursday, three days after a Monday.
            Unit::Week => days - (days + 3).rem_euclid(7),
            Unit::Months(months) => {
                let date =
                    NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + DAYS_TO_1970 + 1).ok()?)?;
                let month = date.month0() / months * months + 1;
                let first = NaiveDate::from_ymd_opt(date.year(), month, 1)?;
                i64::from(first.num_days_from_ce()) - DAYS_TO_1970 - 1
            }
        };
        first.checked_mul(day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microseconds of a time in UTC.
    fn at(text: &str) -> i64 {
        chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
            .unwrap()
            .and_utc()
            .timestamp_micros()
    }

    #[test]
    fn units_begin_where_the_calendar_says() {
        let check = |unit: &str, value: &str, expected: &str| {
            let made = Unit::named(unit).unwrap().truncate(at(value), 1_000_000).unwrap();
            assert_eq!(made, at(expected), "{unit} of {value}");
        };
        check("day", "9999-12-31 23:59:59", "9999-12-31 00:00:00");
        check("quarter", "9999-12-31 23:59:59", "9999-10-01 00:00:00");
        check("month", "2300-01-01 10:00:00", "2300-01-01 00:00:00");
        check("day", "1500-06-07 10:00:00", "1500-06-07 00:00:00");
        check("year", "0001-06-07 10:00:00", "0001-01-01 00:00:00");
        check("week", "1969-12-31 12:00:00", "1969-12-29 00:00:00");
        check("week", "2024-07-07 12:00:00", "2024-07-01 00:00:00");
        check("hour", "1969-12-31 23:59:59.5", "1969-12-31 23:00:00");
        check("millisecond", "1969-12-31 23:59:59.123456", "1969-12-31 23:59:59.123");
        assert!(Unit::named("eon").is_err());
    }

    #[test]
    fn units_begin_by_the_clocks_of_a_zone() {
        let check = |unit: &str, zone: &str, value: &str, expected: &str| {
            let begin = Begin { unit: Unit::named(unit).unwrap(), zone: Some(zone.parse().unwrap()) };
            let made = begin.of::<TimestampMicrosecondType>(at(value), 1_000_000).unwrap();
            assert_eq!(made, at(expected), "{unit} of {value} in {zone}");
        };
        check("day", "Asia/Tokyo", "2026-01-01 20:00:00", "2026-01-01 15:00:00");
        // 02:30 comes twice.
        check("hour", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-25 00:00:00");
        check("hour", "Europe/Berlin", "2026-10-25 01:30:00", "2026-10-25 01:00:00");
        // Midnight was skipped.
        check("day", "America/Sao_Paulo", "2018-11-04 14:00:00", "2018-11-04 03:00:00");
        check("year", "+05:30", "9999-12-31 20:00:00", "9999-12-31 18:30:00");
    }

    #[test]
    fn units_end_where_numbers_do() {
        assert_eq!(Unit::Week.truncate(i64::MIN, 1_000_000_000), None);
    }
}
