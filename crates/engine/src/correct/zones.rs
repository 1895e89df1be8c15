//! `AT TIME ZONE` in microseconds. The engine's planner casts to nanoseconds, which end in 2262, and nothing looks at
//! the name of the zone before a row is printed.

use arrow::array::timezone::Tz;
use datafusion::sql::sqlparser::ast::{CastKind, DataType as Sql, Expr, Ident, ObjectName, Value};

/// The name of the type that stands for times in a zone. No statement writes it by accident.
const IN_ZONE: &str = "a timestamp in a zone";

/// Makes `x AT TIME ZONE 'zone'` a cast to [`IN_ZONE`].
///
/// # Errors
/// There is no such zone, or it is not a constant.
pub(super) fn cast(expr: &mut Expr) -> Result<(), String> {
    let Expr::AtTimeZone { timestamp, time_zone } = expr else { return Ok(()) };
    let Expr::Value(zone) = time_zone.as_ref() else { return Err(not_constant()) };
    let Value::SingleQuotedString(zone) = &zone.value else { return Err(not_constant()) };
    if zone.parse::<Tz>().is_err() {
        return Err(no_zone(zone));
    }
    let in_zone = Sql::Custom(ObjectName::from(vec![Ident::new(IN_ZONE)]), vec![zone.clone()]);
    let value = std::mem::replace(timestamp, Box::new(Expr::value(Value::Null)));
    *expr = Expr::Cast { kind: CastKind::Cast, expr: value, data_type: in_zone, array: false, format: None };
    Ok(())
}

/// The zone of a type that is [`IN_ZONE`].
pub(super) fn of(kind: &Sql) -> Option<&str> {
    match kind {
        Sql::Custom(name, zones) if name.to_string() == IN_ZONE => zones.first().map(String::as_str),
        _ => None,
    }
}

/// The error of a statement with an unknown time zone.
pub fn no_zone(name: &str) -> String {
    format!(
        "there is no time zone '{name}'; zones are names such as 'Europe/Berlin', written so, and offsets such as \
         '+02:00'"
    )
}

fn not_constant() -> String {
    "AT TIME ZONE takes a constant: a name such as 'Europe/Berlin', or an offset such as '+02:00'".to_owned()
}
