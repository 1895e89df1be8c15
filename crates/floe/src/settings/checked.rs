//! Settings that passed every check, with the defaults of those that nobody gave.

use anyhow::{Context, Result, ensure};
use toml::Value as Toml;

use crate::settings::setting::{Preset, Setting};
use crate::settings::table::{Config, SETTINGS};
use crate::settings::typed::{Typed, WrongValue};
use crate::settings::value::{StorePlace, Value, Values};

/// The checked values by name. A setting without a value and without a default is missing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked(Values);

impl Checked {
    /// Checks what was typed and fills in the defaults.
    ///
    /// # Errors
    /// A value is out of range; the message says where it is from and what to choose.
    pub(crate) fn new(typed: &Typed) -> Result<Checked> {
        let mut checked = Checked(Values::default());
        // The place of the store comes first, because defaults depend on it.
        checked.take(setting("store"), typed, true)?;
        let is_local = !checked.0.get::<StorePlace>("store").is_remote();
        for setting in SETTINGS.iter() {
            checked.take(setting, typed, is_local)?;
        }
        checked.append_bytes_hold_requests(typed)?;
        Ok(checked)
    }

    fn take(&mut self, setting: &'static Setting, typed: &Typed, is_local: bool) -> Result<(), WrongValue> {
        let value = match typed.get(setting.name) {
            Some((value, origin)) if !setting.allows(Some(value)) => {
                return Err(WrongValue::new(setting, value, origin));
            }
            Some((value, _)) => Some(value),
            None => match &setting.preset {
                Preset::Same(value) => Some(value),
                Preset::PerStore { local, remote } => Some(if is_local { local } else { remote }),
                Preset::Unset(_) => None,
            },
        };
        if let Some(value) = value {
            self.0.insert(setting.name, value.clone());
        }
        Ok(())
    }

    fn append_bytes_hold_requests(&self, typed: &Typed) -> Result<()> {
        let (append, frame) = (self.0.get::<usize>("append_bytes"), self.0.get::<usize>("frame_bytes"));
        let origin = |name| typed.get(name).map_or("by default".to_owned(), |(_, origin)| origin.to_string());
        ensure!(
            append >= 2 * frame,
            "append_bytes is {append} ({}): choose at least {}, twice frame_bytes ({}), because a request must fit in \
             the memory for records that wait",
            origin("append_bytes"),
            2 * frame,
            origin("frame_bytes"),
        );
        Ok(())
    }

    /// The settings as a broker uses them.
    pub(crate) fn config(&self) -> Config {
        Config::new(&self.0)
    }

    /// The settings as a TOML file that [`Typed::read`] takes. Secrets and settings without a value are comments.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub(crate) fn to_toml(&self) -> Result<String> {
        let mut text = String::new();
        let mut section = "";
        for setting in SETTINGS.iter() {
            if section != setting.section {
                section = setting.section;
                text.push_str(&format!("{}# {section}\n", if text.is_empty() { "" } else { "\n" }));
            }
            text.push_str(&line(setting, self.0.find(setting.name))?);
            text.push('\n');
        }
        Ok(text)
    }
}

/// The row of a setting that code depends on.
fn setting(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("the table has this row")
}

/// A line of a TOML file; a comment where there is no value to show.
fn line(setting: &Setting, value: Option<&Value>) -> Result<String> {
    let name = setting.name;
    let value = match value {
        Some(value) if setting.hides(&value.to_string()) => {
            return Ok(format!("# {name} is set and not shown"));
        }
        Some(Value::Switch(on)) => Toml::Boolean(*on),
        Some(Value::Number(number)) => Toml::Integer(i64::try_from(*number)?),
        Some(Value::Time(time)) => Toml::Integer(i64::try_from(time.as_millis())?),
        Some(Value::Text(text)) => Toml::String(text.clone()),
        Some(Value::Path(path)) => {
            let text = path.to_str().with_context(|| format!("{name} is not UTF-8: {}", path.display()))?;
            Toml::String(text.to_owned())
        }
        Some(Value::Secret(_)) => return Ok(format!("# {name} is set and not shown")),
        None => match setting.preset {
            Preset::Unset(words) => return Ok(format!("# {name} is not set: {words}")),
            _ => anyhow::bail!("{name} has no value"),
        },
    };
    Ok(format!("{name} = {value}"))
}
