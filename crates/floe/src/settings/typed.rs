//! What was typed: values from flags, the environment and a file, each with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use toml::de::DeTable;

use crate::settings::setting::{ENVIRONMENT_PREFIX, Setting};
use crate::settings::table::SETTINGS;
use crate::settings::value::Value;

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A line of a file, counted from one.
    File { path: PathBuf, line: usize },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "from --{flag}"),
            Origin::Environment(name) => write!(f, "from the environment variable {name}"),
            Origin::File { path, line } => write!(f, "from line {line} of {}", path.display()),
        }
    }
}

/// A value that a setting does not take.
#[derive(Debug, thiserror::Error)]
#[error("{name} is {value} ({origin}): choose {range}")]
pub(crate) struct WrongValue {
    name: &'static str,
    value: String,
    origin: Origin,
    range: String,
}

impl WrongValue {
    pub(crate) fn new(setting: &Setting, value: impl fmt::Display, origin: &Origin) -> WrongValue {
        let value = match value.to_string() {
            value if setting.hides(&value) => "not readable".to_owned(),
            value if value.is_empty() => "empty".to_owned(),
            value => value,
        };
        WrongValue { name: setting.name, value, origin: origin.clone(), range: setting.takes.to_string() }
    }
}

/// The settings that were typed. Each value is of the kind that its setting takes; its range is not checked yet.
#[derive(Debug, Default)]
pub(crate) struct Typed(BTreeMap<&'static str, (Value, Origin)>);

impl Typed {
    /// The value of a setting and its origin.
    pub(crate) fn get(&self, name: &str) -> Option<&(Value, Origin)> {
        self.0.get(name)
    }

    /// Gives a setting a value.
    pub(crate) fn insert(&mut self, setting: &'static Setting, value: Value, origin: Origin) {
        self.0.insert(setting.name, (value, origin));
    }

    /// These values, and those of `other` where these say nothing.
    pub(crate) fn over(mut self, other: Typed) -> Typed {
        for (name, typed) in other.0 {
            self.0.entry(name).or_insert(typed);
        }
        self
    }

    /// These values with the place that a command names: a data directory, or a bucket.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn at(mut self, place: Option<&str>) -> Result<Typed> {
        let Some(place) = place else { return Ok(self) };
        let is_store = ["s3://", "file://"].iter().any(|begin| place.starts_with(begin));
        let name = if is_store { "store" } else { "data" };
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.with_context(|| format!("there is no setting {name}"))?;
        let origin = Origin::Flag(name);
        let value = setting.takes.parse(place.as_ref());
        let value = value.ok_or_else(|| WrongValue::new(setting, place, &origin))?;
        self.insert(setting, value, origin);
        Ok(self)
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, a key is no setting, or a value is not of its setting's kind.
    pub(crate) fn read(path: &Path) -> Result<Typed> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Typed::parse(&text, path)
    }

    /// Reads the text of a TOML file; `path` is for messages.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Typed> {
        let table = DeTable::parse(text).map_err(|error| {
            // The error as a whole shows the line, which may have a password.
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            anyhow!("cannot use {}: line {line}: {}", path.display(), error.message())
        })?;
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        // The message is about the first line that is wrong.
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut typed = Typed::default();
        for (key, value) in entries {
            let line = 1 + text[..key.span().start].matches('\n').count();
            let origin = Origin::File { path: path.to_owned(), line };
            let setting = SETTINGS.iter().find(|setting| setting.name == key.get_ref());
            let setting = setting.ok_or_else(|| unknown(key.get_ref(), &origin))?;
            let read = setting.takes.parse_toml(value.get_ref());
            let read = read.ok_or_else(|| WrongValue::new(setting, &text[value.span()], &origin))?;
            typed.insert(setting, read, origin);
        }
        Ok(typed)
    }
}

/// Variables that are no settings and look like one, each with the one that was probably meant.
pub(crate) fn misspelt(variables: impl Iterator<Item = String>) -> Vec<(String, &'static str)> {
    let meant = |name: &str| {
        let typed = name.strip_prefix(ENVIRONMENT_PREFIX)?;
        let distance = |setting: &&Setting| strsim::damerau_levenshtein(name, &setting.environment);
        let nearest = SETTINGS.iter().min_by_key(distance)?;
        // Other programs have variables with this prefix, too.
        let is_near = (1..=typed.len() / 4).contains(&distance(&nearest));
        is_near.then_some(nearest.environment.as_str())
    };
    variables.filter_map(|name| meant(&name).map(|nearest| (name, nearest))).collect()
}

fn unknown(key: &str, origin: &Origin) -> anyhow::Error {
    let distance = |setting: &&Setting| strsim::damerau_levenshtein(key, setting.name);
    let nearest = SETTINGS.iter().min_by_key(distance).map_or("", |setting| setting.name);
    anyhow!(
        "no setting is called {key} ({origin}): the nearest name is {nearest}; `floe serve --help` lists all"
    )
}
