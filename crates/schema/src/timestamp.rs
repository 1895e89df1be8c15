//! RFC 3339 timestamps to microseconds, exactly or not at all.

use std::ops::RangeInclusive;

/// Parses an RFC 3339 timestamp with an offset (`2013-01-01T05:00:00Z`, `2013-01-01 05:00:00.25+01:00`) to microseconds
/// since 1970-01-01T00:00:00Z. Returns `None` for every other text, and for timestamps that microseconds cannot hold
/// exactly: more than six significant decimals, leap seconds. So does it for instants that are outside the years 1 to
/// 9999 in UTC: common readers, such as Python, cannot hold them.
pub fn parse(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    // The shortest form has 20 bytes. This first check must be cheap, because every string goes through it.
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(b, 0, 4)?, digits(b, 5, 2)?, digits(b, 8, 2)?);
    let (hour, minute, second) = (digits(b, 11, 2)?, digits(b, 14, 2)?, digits(b, 17, 2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, rest) = fraction(&b[19..])?;
    let offset_minutes = offset(rest)?;
    let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset_minutes * 60) * 1_000_000 + micros).filter(|micros| INSTANTS.contains(micros))
}

/// The instants of a timestamp column: 0001-01-01T00:00:00Z to the last microsecond of the year 9999.
const INSTANTS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The instant of a record, whose timestamp is in milliseconds since the epoch, in microseconds. `None` if it is
/// outside the years 1 to 9999.
pub(crate) fn of_record(millis: i64) -> Option<i64> {
    millis.checked_mul(1000).filter(|micros| INSTANTS.contains(micros))
}

fn digits(bytes: &[u8], from: usize, count: usize) -> Option<i64> {
    let mut number = 0;
    for &b in &bytes[from..from + count] {
        if !b.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(b - b'0');
    }
    Some(number)
}

/// The decimals as microseconds, and what follows them.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', decimals)) = bytes.split_first() else {
        return Some((0, bytes));
    };
    let count = decimals.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 || decimals[..count].iter().skip(6).any(|b| *b != b'0') {
        return None;
    }
    let mut micros = 0;
    for digit in decimals[..count].iter().chain([b'0'; 6].iter()).take(6) {
        micros = micros * 10 + i64::from(digit - b'0');
    }
    Some((micros, &decimals[count..]))
}

/// The offset in minutes, east positive.
fn offset(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
            let (hours, minutes) = (digits(rest, 0, 2)?, digits(rest, 3, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let total = hours * 60 + minutes;
            Some(if *sign == b'-' { -total } else { total })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_instants_of_the_years_that_readers_know() {
        for (millis, micros) in [
            (0, Some(0)),
            (-2, Some(-2_000)),
            (-62_135_596_800_000, Some(-62_135_596_800_000_000)),
            (-62_135_596_800_001, None),
            (253_402_300_799_999, Some(253_402_300_799_999_000)),
            (253_402_300_800_000, None),
            (1_700_000_000_000_000, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(of_record(millis), micros, "{millis}");
        }
    }

    #[test]
    fn only_exact_instants_are_taken() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2013-01-01T05:00:00Z", Some(1_357_016_400_000_000)),
            ("2013-01-01 00:00:00.25-05:00", Some(1_357_016_400_250_000)),
            ("2024-02-29T00:00:00.000000000Z", Some(1_709_164_800_000_000)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800_000_000)),
            ("9999-12-31T23:59:59.999999Z", Some(253_402_300_799_999_999)),
            ("0000-01-01T00:00:00Z", None),
            ("0000-12-31T23:59:59.999999Z", None),
            ("0001-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("0000-12-31T23:00:00-01:00", Some(-62_135_596_800_000_000)),
            ("2013-02-29T00:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2016-12-31T23:59:60Z", None),
            ("2013-01-01T05:00:00", None),
            ("2013-01-01T05:00:00.Z", None),
            ("2013-01-01T05:00:00.1234567Z", None),
            ("2013-01-01T05:00:00+0100", None),
            ("2013-01-01T05:00:00+24:00", None),
            ("2013-13-01T05:00:00Z", None),
            ("2013-01-01", None),
            ("2013-01-01T05:00:00Zx", None),
            ("not a timestamp at all, but long", None),
        ] {
            assert_eq!(parse(text), micros, "{text}");
        }
    }
}
