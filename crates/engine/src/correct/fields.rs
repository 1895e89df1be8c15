//! Fields of intervals: `extract(hour FROM later - earlier)`, and the same as `date_part`.
//!
//! An interval has months, days and a time. The engine takes a difference of times for a number of one unit, so that 49
//! hours have the hour 49, and half a second has no fraction; of an interval it loses the fractions, too, and a year
//! has 360 days. Here the fields are those of PostgreSQL and DuckDB: a difference of times has days of 24 hours, a
//! month has twelfths of a year, and the epoch counts 30 days a month and 365.25 days a year.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::IntervalUnit as Named;
use arrow::datatypes::{DataType, DurationNanosecondType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::times::micros;
use crate::wrapped::from_inner;

const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;

/// Plans `extract` with [`DatePart`]. The engine's planner knows only its own function.
#[derive(Debug)]
pub(super) struct Extract;

impl ExprPlanner for Extract {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let function = DatePart::over(datafusion::functions::datetime::date_part());
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args))))
    }
}

/// `date_part` with the fields of intervals.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl DatePart {
    pub(super) fn over(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(DatePart {
            inner,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}

impl ScalarUDFImpl for DatePart {
    from_inner!(name, aliases, return_type, return_field_from_args, documentation);

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [field, value] = types else {
            return plan_err!("date_part takes the name of a field and a time");
        };
        if !field.is_string() {
            return plan_err!("the field of date_part is a text such as 'hour', not {field}");
        }
        let value = match value {
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            kind if kind.is_temporal() => kind.clone(),
            kind if kind.is_string() || kind.is_null() => micros(None),
            other => return plan_err!("date_part takes a time, a date or an interval, not {other}"),
        };
        Ok(vec![DataType::Utf8, value])
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(call.args[1].data_type(), DataType::Interval(_) | DataType::Duration(_)) {
            return self.inner.invoke_with_args(call);
        }
        let ColumnarValue::Scalar(name) = &call.args[0] else {
            return exec_err!("the field of date_part is a constant");
        };
        let field = Field::named(name.try_as_str().flatten().unwrap_or_default())?;
        let constant = matches!(call.args[1], ColumnarValue::Scalar(_));
        let values = call.args[1].to_array(if constant { 1 } else { call.number_rows })?;
        let made = field.of_all(&spans(&values)?, call.return_field.data_type())?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// The three parts of an interval.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    months: i128,
    days: i128,
    nanoseconds: i128,
}

fn spans(values: &ArrayRef) -> Result<Vec<Option<Span>>> {
    if let DataType::Duration(unit) = values.data_type() {
        let scale = match unit {
            TimeUnit::Second => SECOND,
            TimeUnit::Millisecond => SECOND / 1_000,
            TimeUnit::Microsecond => SECOND / 1_000_000,
            TimeUnit::Nanosecond => 1,
        };
        // The number stays, whatever its unit.
        let numbers = cast(&cast(values, &DataType::Int64)?, &DataType::Duration(TimeUnit::Nanosecond))?;
        let span = |number: i64| {
            let all = i128::from(number) * scale;
            Span { months: 0, days: all / DAY, nanoseconds: all % DAY }
        };
        let numbers = numbers.as_primitive::<DurationNanosecondType>();
        return Ok(numbers.iter().map(|number| number.map(span)).collect());
    }
    let values = cast(values, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let span = |value: arrow::datatypes::IntervalMonthDayNano| Span {
        months: value.months.into(),
        days: value.days.into(),
        nanoseconds: value.nanoseconds.into(),
    };
    Ok(values.as_primitive::<IntervalMonthDayNanoType>().iter().map(|value| value.map(span)).collect())
}

/// The length of each interval in nanoseconds. A month has 30 days, and a day 24 hours.
pub(super) fn lengths(values: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let length = |span: Span| (span.months * 30 + span.days) * DAY + span.nanoseconds;
    Ok(spans(values)?.into_iter().map(|span| span.map(length)).collect())
}

/// A field of an interval. Those of the larger units are cut off, also below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Epoch,
    /// A number of years.
    Years(i128),
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    /// What is left of a minute, in a number of nanoseconds.
    Seconds(i128),
}

impl Field {
    fn named(name: &str) -> Result<Field> {
        let name = name.trim_matches(['\'', '"']).to_lowercase();
        Ok(match name.as_str() {
            "epoch" => Field::Epoch,
            "quarter" | "qtr" => Field::Quarter,
            "millennium" | "millenniums" | "millennia" => Field::Years(1_000),
            other => match Named::from_str(other) {
                Ok(Named::Century) => Field::Years(100),
                Ok(Named::Decade) => Field::Years(10),
                Ok(Named::Year) => Field::Years(1),
                Ok(Named::Month) => Field::Month,
                Ok(Named::Week) => Field::Week,
                Ok(Named::Day) => Field::Day,
                Ok(Named::Hour) => Field::Hour,
                Ok(Named::Minute) => Field::Minute,
                Ok(Named::Second) => Field::Seconds(SECOND),
                Ok(Named::Millisecond) => Field::Seconds(SECOND / 1_000),
                Ok(Named::Microsecond) => Field::Seconds(SECOND / 1_000_000),
                Ok(Named::Nanosecond) => Field::Seconds(1),
                Err(_) => return exec_err!("an interval has no field '{other}'"),
            },
        })
    }

    fn of(self, span: Span) -> i128 {
        let Span { months, days, nanoseconds } = span;
        match self {
            Field::Epoch => {
                let seconds = months / 12 * 31_557_600 + months % 12 * 2_592_000 + days * 86_400;
                seconds * SECOND + nanoseconds
            }
            Field::Years(years) => months / (12 * years),
            Field::Quarter => months % 12 / 3 + 1,
            Field::Month => months % 12,
            Field::Week => days / 7,
            Field::Day => days,
            Field::Hour => nanoseconds / HOUR,
            Field::Minute => nanoseconds % HOUR / MINUTE,
            Field::Seconds(unit) => nanoseconds % MINUTE / unit,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the epoch is a floating-point number")]
    fn of_all(self, spans: &[Option<Span>], kind: &DataType) -> Result<ArrayRef> {
        let all = spans.iter().map(|span| span.map(|span| self.of(span)));
        if self == Field::Epoch {
            return Ok(Arc::new(all.map(|value| value.map(|n| n as f64 / 1e9)).collect::<Float64Array>()));
        }
        let too_large = |_| exec_datafusion_err!("a field of an interval is too large");
        Ok(match kind {
            DataType::Int64 => {
                let fits = |value: Option<i128>| value.map(i64::try_from).transpose().map_err(too_large);
                Arc::new(all.map(fits).collect::<Result<Int64Array>>()?)
            }
            _ => {
                let fits = |value: Option<i128>| value.map(i32::try_from).transpose().map_err(too_large);
                Arc::new(all.map(fits).collect::<Result<Int32Array>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PostgreSQL 15 gives these, except for the fractions of a second, which have fields of their own here.
    #[test]
    fn fields_of_an_interval() {
        let span = Span { months: 14, days: 40, nanoseconds: 49 * HOUR + 90 * SECOND + SECOND / 4 };
        let back = Span { months: -14, days: -1, nanoseconds: -90 * MINUTE };
        for (name, expected, backwards) in [
            ("year", 1, -1),
            ("decade", 0, 0),
            ("quarter", 1, 1),
            ("months", 2, -2),
            ("week", 5, 0),
            ("DAY", 40, -1),
            ("hour", 49, -1),
            ("minute", 1, -30),
            ("second", 30, 0),
            ("millisecond", 30_250, 0),
            ("microseconds", 30_250_000, 0),
        ] {
            let field = Field::named(name).unwrap();
            assert_eq!((field.of(span), field.of(back)), (expected, backwards), "{name}");
        }
        let epoch = 31_557_600 + 2 * 2_592_000 + 40 * 86_400 + 49 * 3_600 + 90;
        assert_eq!(Field::Epoch.of(span), epoch * SECOND + SECOND / 4);
        assert!(Field::named("dow").is_err());
    }
}
