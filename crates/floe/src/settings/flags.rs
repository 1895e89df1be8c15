//! Settings as flags and environment variables.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::settings::setting::Setting;
use crate::settings::table::SETTINGS;
use crate::settings::typed::{Origin, Typed, WrongValue};
use crate::settings::value::Value;
use crate::settings::words;

/// `floe serve` takes every setting as a flag or from the environment.
impl Args for Typed {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(flag_with_environment))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Typed::augment_args(command)
    }
}

impl FromArgMatches for Typed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Typed, clap::Error> {
        Ok(found(matches, SETTINGS.iter()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Typed::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings that `floe demo` takes. They are flags alone: an environment that is meant for a broker must not lead
/// the demo to that broker's data.
#[derive(Debug)]
pub(crate) struct TypedForDemo(pub(crate) Typed);

impl TypedForDemo {
    fn settings() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| ["data", "kafka", "http"].contains(&setting.name))
    }
}

impl Args for TypedForDemo {
    fn augment_args(command: Command) -> Command {
        command.args(TypedForDemo::settings().map(|setting| {
            let preset = match setting.name {
                "data" => "a temporary directory, removed at the end".to_owned(),
                _ => format!("{}, or a free port when that is taken", words::preset(setting)),
            };
            flag(setting).help(words::help(setting, &[&format!("[default: {preset}]")]))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        TypedForDemo::augment_args(command)
    }
}

impl FromArgMatches for TypedForDemo {
    fn from_arg_matches(matches: &ArgMatches) -> Result<TypedForDemo, clap::Error> {
        Ok(TypedForDemo(found(matches, TypedForDemo::settings())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = TypedForDemo::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings that `floe check` takes: those that say where the data is.
#[derive(Debug)]
pub(crate) struct TypedForCheck(pub(crate) Typed);

impl TypedForCheck {
    fn settings() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| {
            ["data", "store", "journal"].contains(&setting.name) || setting.name.starts_with("s3_")
        })
    }
}

impl Args for TypedForCheck {
    fn augment_args(command: Command) -> Command {
        command.args(TypedForCheck::settings().map(flag_with_environment))
    }

    fn augment_args_for_update(command: Command) -> Command {
        TypedForCheck::augment_args(command)
    }
}

impl FromArgMatches for TypedForCheck {
    fn from_arg_matches(matches: &ArgMatches) -> Result<TypedForCheck, clap::Error> {
        Ok(TypedForCheck(found(matches, TypedForCheck::settings())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = TypedForCheck::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag_with_environment(setting: &'static Setting) -> Arg {
    let name = &setting.environment;
    let environment = match std::env::var_os(name).unwrap_or_default() {
        value if setting.hides(&value.to_string_lossy()) => format!("[env: {name}]"),
        value => format!("[env: {name}={}]", value.display()),
    };
    let preset = format!("[default: {}]", words::preset(setting));
    let takes = format!("[takes: {}]", setting.takes);
    flag(setting)
        .env(name.as_str())
        .help_heading(setting.section)
        .help(words::help(setting, &[&preset, &environment]))
        .long_help(words::long_help(setting, &[&preset, &takes, &environment]))
}

fn flag(setting: &'static Setting) -> Arg {
    Arg::new(setting.name)
        .long(setting.flag.as_str())
        .value_name(setting.takes.shown())
        .value_parser(Reader(setting))
        // -1 is no flag, but a value out of range: Kafka's word for "no limit".
        .allow_negative_numbers(true)
        // The help names the variable itself, in lines that are short enough for a narrow terminal.
        .hide_env(true)
}

/// Reads what was typed for a setting.
#[derive(Clone)]
struct Reader(&'static Setting);

impl TypedValueParser for Reader {
    type Value = (Value, Origin);

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        typed: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.parse_ref_(command, None, typed, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &Command,
        _: Option<&Arg>,
        typed: &OsStr,
        source: ValueSource,
    ) -> Result<Self::Value, clap::Error> {
        let Reader(setting) = self;
        let origin = match source {
            ValueSource::EnvVariable => Origin::Environment(&setting.environment),
            _ => Origin::Flag(&setting.flag),
        };
        let Some(value) = setting.takes.parse(typed) else {
            let wrong = WrongValue::new(setting, typed.display(), &origin);
            let message = format!("{wrong}\n\nFor more information, try '--help'.\n");
            return Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command));
        };
        Ok((value, origin))
    }
}

/// Takes what clap has found for these settings.
fn found(matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) -> Typed {
    let mut typed = Typed::default();
    for setting in settings {
        if let Some((value, origin)) = matches.get_one::<(Value, Origin)>(setting.name) {
            typed.insert(setting, value.clone(), origin.clone());
        }
    }
    typed
}
