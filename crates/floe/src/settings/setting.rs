//! One row of the table: what a setting takes, its default, and how both are told to people.

use std::ffi::OsStr;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::settings::value::{FromValue, Secret, Value};

/// What the environment variables of settings begin with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "FLOE_";

/// How the place of a journal is written in the usage.
pub(crate) const JOURNAL: &str = "JOURNAL";

/// One setting of a broker.
pub(crate) struct Setting {
    /// Its key in the TOML file: `linger_ms`.
    pub(crate) name: &'static str,
    /// Its flag, without the dashes: `linger-ms`.
    pub(crate) flag: String,
    /// Its environment variable: `FLOE_LINGER_MS`.
    pub(crate) environment: String,
    /// The part of a broker that it belongs to, as a title.
    pub(crate) section: &'static str,
    /// What it does, for people.
    pub(crate) words: &'static str,
    /// The values that it takes.
    pub(crate) takes: Takes,
    /// The value when none is given.
    pub(crate) preset: Preset,
    /// Whether the type of the row can hold a value, or do without one.
    fits: fn(Option<&Value>) -> bool,
}

impl Setting {
    /// A row whose field has the type `T`.
    pub(crate) fn new<T: FromValue>(
        name: &'static str,
        section: &'static str,
        words: &'static str,
        takes: Takes,
        preset: Preset,
    ) -> Setting {
        Setting {
            name,
            flag: name.replace('_', "-"),
            environment: format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase()),
            section,
            words: words.trim_ascii(),
            takes,
            preset,
            fits: |value| T::from_value(value).is_some(),
        }
    }

    /// The row with an environment variable of another name.
    pub(crate) fn named(mut self, environment: &str) -> Setting {
        environment.clone_into(&mut self.environment);
        self
    }

    /// Whether its values are never shown.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.takes, Takes::Secret(..))
    }

    /// Whether a value is not shown: all of a secret, and what may be an address with a password.
    pub(crate) fn hides(&self, text: &str) -> bool {
        self.is_secret() || (self.takes.shown() == JOURNAL && text.contains([':', '@', '=', '/']))
    }

    /// Whether a value is in range. `None` asks whether the setting can do without a value.
    pub(crate) fn allows(&self, value: Option<&Value>) -> bool {
        value.is_none_or(|value| self.takes.contains(value)) && (self.fits)(value)
    }
}

/// The value of a setting that nobody gave.
pub(crate) enum Preset {
    /// Always the same.
    Same(Value),
    /// What suits the store.
    PerStore { local: Value, remote: Value },
    /// No value; the words say what happens then.
    Unset(&'static str),
}

impl<T: Into<Value>> From<T> for Preset {
    fn from(value: T) -> Preset {
        Preset::Same(value.into())
    }
}

/// A default that depends on the store.
pub(crate) fn per_store(local: impl Into<Value>, remote: impl Into<Value>) -> Preset {
    Preset::PerStore { local: local.into(), remote: remote.into() }
}

/// No default; the words say what happens without a value.
pub(crate) fn unset(words: &'static str) -> Preset {
    Preset::Unset(words)
}

/// The values that a setting takes.
pub(crate) enum Takes {
    /// `true` or `false`.
    Switch,
    /// A number in a range.
    Number(Unit, RangeInclusive<u64>),
    /// One of these texts, each with its meaning.
    OneOf(&'static str, &'static [(&'static str, &'static str)]),
    /// Text; the second words say which.
    Text(&'static str, &'static str),
    /// A file or a directory.
    Path(&'static str, &'static str),
    /// Text that is never shown.
    Secret(&'static str, &'static str),
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Millis,
}

/// A switch.
pub(crate) fn switch() -> Takes {
    Takes::Switch
}

/// A number of things.
pub(crate) fn count(range: RangeInclusive<u64>) -> Takes {
    Takes::Number(Unit::Count, range)
}

/// A number of bytes.
pub(crate) fn bytes(range: RangeInclusive<u64>) -> Takes {
    Takes::Number(Unit::Bytes, range)
}

/// A time in milliseconds.
pub(crate) fn millis(range: RangeInclusive<u64>) -> Takes {
    Takes::Number(Unit::Millis, range)
}

/// One of several texts.
pub(crate) fn one_of(shown: &'static str, choices: &'static [(&'static str, &'static str)]) -> Takes {
    Takes::OneOf(shown, choices)
}

/// Text: how it is written in the usage, and what it may be.
pub(crate) fn text(shown: &'static str, range: &'static str) -> Takes {
    Takes::Text(shown, range)
}

/// `HOST:PORT`.
pub(crate) fn host_port() -> Takes {
    Takes::Text("HOST:PORT", "HOST:PORT, with a port up to 65535")
}

/// A directory.
pub(crate) fn directory() -> Takes {
    Takes::Path("DIR", "a path")
}

/// Text that is never shown.
pub(crate) fn secret(shown: &'static str, range: &'static str) -> Takes {
    Takes::Secret(shown, range)
}

impl Takes {
    /// How a value is written in the usage.
    pub(crate) fn shown(&self) -> &'static str {
        match self {
            Takes::Switch => "BOOL",
            Takes::Number(Unit::Count, _) => "N",
            Takes::Number(Unit::Bytes, _) => "BYTES",
            Takes::Number(Unit::Millis, _) => "MS",
            Takes::OneOf(shown, _)
            | Takes::Text(shown, _)
            | Takes::Path(shown, _)
            | Takes::Secret(shown, _) => shown,
        }
    }

    /// Reads what was typed as a flag or an environment variable. `None` if it is not even of this kind.
    pub(crate) fn parse(&self, typed: &OsStr) -> Option<Value> {
        if let Takes::Path(..) = self {
            return (!typed.is_empty()).then(|| Value::Path(PathBuf::from(typed)));
        }
        let text = typed.to_str()?;
        match self {
            Takes::Switch => text.parse().ok().map(Value::Switch),
            Takes::Number(unit, _) => text.parse().ok().map(|number| unit.value(number)),
            Takes::OneOf(_, choices) => {
                choices.iter().any(|(choice, _)| *choice == text).then(|| Value::from(text))
            }
            Takes::Text(..) => Some(Value::from(text)),
            Takes::Path(..) => None,
            Takes::Secret(..) => Some(Value::Secret(Secret(text.to_owned()))),
        }
    }

    /// Reads what the file says. `None` if it is not of this kind: text in quotes is no number.
    pub(crate) fn parse_toml(&self, value: &DeValue<'_>) -> Option<Value> {
        match (self, value) {
            (Takes::Switch, DeValue::Boolean(on)) => Some(Value::Switch(*on)),
            (Takes::Number(unit, _), DeValue::Integer(number)) => {
                let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
                Some(unit.value(number))
            }
            (Takes::Switch | Takes::Number(..), _) => None,
            (_, DeValue::String(text)) => self.parse(OsStr::new(text.as_ref())),
            _ => None,
        }
    }

    fn contains(&self, value: &Value) -> bool {
        match (self, value) {
            (Takes::Number(Unit::Millis, range), Value::Time(time)) => {
                u64::try_from(time.as_millis()).is_ok_and(|millis| range.contains(&millis))
            }
            (Takes::Number(_, range), Value::Number(number)) => range.contains(number),
            (Takes::OneOf(_, choices), Value::Text(text)) => choices.iter().any(|(choice, _)| choice == text),
            (Takes::Switch, Value::Switch(_))
            | (Takes::Text(..), Value::Text(_))
            | (Takes::Path(..), Value::Path(_))
            | (Takes::Secret(..), Value::Secret(_)) => true,
            _ => false,
        }
    }

    /// A value with its unit in the words of people where that says more than the number.
    pub(crate) fn show(&self, value: &Value) -> String {
        match (self, value) {
            (Takes::Number(unit, _), Value::Number(number)) => unit.show(*number),
            (Takes::Number(unit, _), Value::Time(time)) => {
                u64::try_from(time.as_millis()).map_or_else(|_| value.to_string(), |millis| unit.show(millis))
            }
            _ => value.to_string(),
        }
    }
}

/// The range in words: what follows `choose`.
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::Switch => f.write_str("true or false"),
            Takes::Number(unit, range) => {
                write!(f, "{} to {}", unit.show(*range.start()), unit.show(*range.end()))?;
                f.write_str(match unit {
                    Unit::Count => "",
                    Unit::Bytes => " bytes",
                    Unit::Millis => " milliseconds",
                })
            }
            Takes::OneOf(_, choices) => {
                for (number, (choice, meaning)) in choices.iter().enumerate() {
                    let joint = match number {
                        0 => "",
                        last if last + 1 == choices.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{joint}{choice} ({meaning})")?;
                }
                Ok(())
            }
            Takes::Text(_, range) | Takes::Path(_, range) | Takes::Secret(_, range) => f.write_str(range),
        }
    }
}

impl Unit {
    fn value(self, number: u64) -> Value {
        match self {
            Unit::Count | Unit::Bytes => Value::Number(number),
            Unit::Millis => Value::Time(Duration::from_millis(number)),
        }
    }

    /// The number, and in brackets the same in the largest unit that divides it.
    fn show(self, number: u64) -> String {
        const BYTES: &[(u64, &str)] =
            &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        const MILLIS: &[(u64, &str)] = &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
        let larger = match self {
            Unit::Count => &[][..],
            Unit::Bytes => BYTES,
            Unit::Millis => MILLIS,
        };
        match larger.iter().find(|(size, _)| number > 0 && number.is_multiple_of(*size)) {
            Some((size, name)) => format!("{number} ({} {name})", number / size),
            None => number.to_string(),
        }
    }
}
