//! Sizes and rates as people type them: `64KiB`, `5000`, `20MiB`.

use std::fmt;
use std::str::FromStr;

/// The units, largest first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteCount(pub(crate) u64);

/// How much is sent a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Records.
    Records(u64),
    /// Bytes of values.
    Bytes(u64),
}

/// Splits a number from the unit behind it.
fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|_| format!("`{text}` begins with no whole number"))?;
    Ok((number, unit.trim_start()))
}

/// The bytes of a number with a unit.
fn bytes(number: u64, unit: &str) -> Result<u64, String> {
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(|| format!("`{unit}` is no unit: write B, KiB, MiB, GiB, kB, MB or GB"))?;
    number.checked_mul(*factor).ok_or_else(|| format!("{number} {unit} is too much"))
}

impl FromStr for ByteCount {
    type Err = String;
    fn from_str(text: &str) -> Result<ByteCount, String> {
        match split(text)? {
            (number, "") => Ok(ByteCount(number)),
            (number, unit) => bytes(number, unit).map(ByteCount),
        }
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Rate, String> {
        match split(text.strip_suffix("/s").unwrap_or(text))? {
            (number, "") => Ok(Rate::Records(number)),
            (number, unit) => bytes(number, unit).map(Rate::Bytes),
        }
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ByteCount(bytes) = *self;
        let binary = UNITS.iter().take(3).find(|(_, factor)| bytes > 0 && bytes % factor == 0);
        match binary {
            Some((name, factor)) => write!(f, "{} {name}", bytes / factor),
            None => write!(f, "{bytes} B"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Records(records) => write!(f, "{records} records/s"),
            Rate::Bytes(bytes) => write!(f, "{}/s", ByteCount(*bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("0", 0, "0 B"),
            ("1000", 1_000, "1000 B"),
            ("64KiB", 65_536, "64 KiB"),
            ("64 kib", 65_536, "64 KiB"),
            ("3MB", 3_000_000, "3000000 B"),
            ("1GiB", 1 << 30, "1 GiB"),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)));
            assert_eq!(ByteCount(bytes).to_string(), shown);
        }
        for wrong in ["", "KiB", "-1", "1.5MiB", "1XB", "99999999999GiB", "99999999999999999999"] {
            assert!(wrong.parse::<ByteCount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_without_a_unit_counts_records() {
        assert_eq!("5000".parse(), Ok(Rate::Records(5_000)));
        assert_eq!("5000/s".parse(), Ok(Rate::Records(5_000)));
        assert_eq!("10MiB".parse(), Ok(Rate::Bytes(10 << 20)));
        assert_eq!("10MiB/s".parse(), Ok(Rate::Bytes(10 << 20)));
        assert_eq!(Rate::Bytes(10 << 20).to_string(), "10 MiB/s");
        assert!("fast".parse::<Rate>().is_err());
    }
}
