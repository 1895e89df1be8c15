//! What must hold for every row of the table.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use toml::Value as Toml;

use crate::cli::{self, Cli};
use crate::settings::setting::{Preset, Setting, Takes, Unit};
use crate::settings::table::SETTINGS;
use crate::settings::typed::Origin;
use crate::settings::value::{JournalPlace, Secret, Value};
use crate::settings::{Checked, Config, Typed, misspelt};

fn file(text: &str) -> Result<Typed> {
    Typed::parse(text, Path::new("floe.toml"))
}

fn check(text: &str) -> Result<Config> {
    Ok(Checked::new(&file(text)?)?.config())
}

/// The message of the text of a file that is refused.
fn refused(text: &str) -> String {
    format!("{:#}", check(text).expect_err(text))
}

fn flags(arguments: &[String]) -> Result<Typed, clap::Error> {
    let command = ["floe".to_owned(), "serve".to_owned()];
    match Cli::try_parse_from(command.iter().chain(arguments))?.command {
        cli::Command::Serve(args) => Ok(args.settings),
        _ => unreachable!("it is `floe serve`"),
    }
}

fn flag(setting: &Setting, text: &str) -> [String; 2] {
    [format!("--{}", setting.flag), text.to_owned()]
}

/// A line of a file.
fn line(setting: &Setting, text: &str) -> String {
    let value = match setting.takes {
        Takes::Switch => Toml::Boolean(text.parse().expect("a switch")),
        Takes::Number(..) => Toml::Integer(text.parse().expect("a number")),
        _ => Toml::String(text.to_owned()),
    };
    format!("{} = {value}\n", setting.name)
}

/// The value of a secret.
const HIDDEN: &str = "not for all eyes";

/// Texts that a setting takes; the last one is not its default.
fn samples(setting: &Setting) -> Vec<String> {
    let mut samples: Vec<String> = match &setting.takes {
        Takes::Switch => vec!["true".to_owned(), "false".to_owned()],
        Takes::Number(_, range) => vec![range.start().to_string(), range.end().to_string()],
        Takes::OneOf(_, choices) => choices.iter().map(|(choice, _)| (*choice).to_owned()).collect(),
        Takes::Text("STORE", _) => ["local", "file:///d", "s3://b/p"].map(str::to_owned).into(),
        Takes::Text("JOURNAL", _) => vec!["local".to_owned(), "bucket".to_owned()],
        Takes::Text("HOST:PORT", _) => vec!["broker:0".to_owned(), "[::1]:65535".to_owned()],
        Takes::Text("NAMES", _) => vec!["floe.example".to_owned(), "a.example,*.b.example".to_owned()],
        Takes::Text(..) | Takes::Path(..) => vec!["a 'text'".to_owned()],
        Takes::Secret(..) => vec![HIDDEN.to_owned()],
    };
    if let Takes::Text("FILTER", _) = setting.takes {
        samples = vec!["warn,floe_lake=debug".to_owned()];
    }
    let preset = match &setting.preset {
        Preset::Same(value) => Some(value.to_string()),
        _ => None,
    };
    samples.sort_by_key(|sample| Some(sample) != preset.as_ref());
    samples
}

/// A text that is not the default, for each setting.
fn others() -> Vec<(&'static Setting, String)> {
    SETTINGS.iter().map(|setting| (setting, samples(setting).pop().expect("a sample"))).collect()
}

#[test]
fn a_row_says_all_that_people_need() {
    let mut names = BTreeSet::new();
    for setting in SETTINGS.iter() {
        let name = setting.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(setting.words.len() > 8 && !setting.words.ends_with('.'), "{name}: `{}`", setting.words);
        assert!(!setting.section.is_empty() && !setting.takes.shown().is_empty(), "{name}");
        let range = setting.takes.to_string();
        assert!(range.len() > 5, "{name} takes `{range}`");
        assert!(
            !range.contains('|') && !setting.words.contains('|'),
            "{name} breaks the columns of the page"
        );
        let unit = match setting.takes {
            Takes::Number(unit, _) => Some(unit),
            _ => None,
        };
        assert_eq!(unit == Some(Unit::Bytes), name.ends_with("_bytes"), "{name} names its unit");
        assert_eq!(unit == Some(Unit::Millis), name.ends_with("_ms"), "{name} names its unit");
    }
}

#[test]
fn the_range_of_a_row_and_its_default_fit_its_type() {
    for setting in SETTINGS.iter() {
        let name = setting.name;
        match &setting.preset {
            Preset::Same(value) => assert!(setting.allows(Some(value)), "{name}: {value:?}"),
            Preset::PerStore { local, remote } => {
                assert!(setting.allows(Some(local)) && setting.allows(Some(remote)), "{name}");
            }
            Preset::Unset(words) => assert!(setting.allows(None) && !words.is_empty(), "{name}"),
        }
        for text in samples(setting) {
            let value = setting.takes.parse(OsStr::new(&text));
            assert!(value.is_some() && setting.allows(value.as_ref()), "{name} = {text}");
        }
    }
}

#[test]
fn a_flag_and_a_line_of_a_file_give_the_same_value() {
    for setting in SETTINGS.iter() {
        for text in samples(setting) {
            let by_flag = flags(&flag(setting, &text)).expect("the flag is taken");
            let by_file = file(&line(setting, &text)).expect("the line is taken");
            let (value, origin) = by_flag.get(setting.name).expect("it was typed");
            assert_eq!(*origin, Origin::Flag(&setting.flag));
            let (in_file, origin) = by_file.get(setting.name).expect("it is in the file");
            assert_eq!(*origin, Origin::File { path: "floe.toml".into(), line: 1 });
            assert_eq!((value, value.to_string()), (in_file, in_file.to_string()), "{}", setting.name);
            assert!(setting.is_secret() || value.to_string() == text, "{}: {value}", setting.name);
        }
    }
}

const CHILD: &str = "FLOE_TEST_CHILD_OF_SETTINGS";

/// In the child, every environment variable of the table is set.
#[test]
fn child_with_an_environment() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let typed = flags(&[]).expect("the environment is taken");
    for (setting, text) in others() {
        let by_file = file(&line(setting, &text)).expect("the line is taken");
        let (value, origin) = typed.get(setting.name).expect("it is set");
        assert_eq!(*origin, Origin::Environment(&setting.environment));
        assert_eq!(Some(value), by_file.get(setting.name).map(|(value, _)| value), "{}", setting.name);
    }
    let flag_wins = flags(&["--uploads".to_owned(), "7".to_owned()]).expect("the flag is taken");
    assert_eq!(flag_wins.get("uploads"), Some(&(Value::Number(7), Origin::Flag("uploads"))));
}

#[test]
fn the_environment_gives_the_same_values() {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["settings::tests::child_with_an_environment", "--exact"]).env(CHILD, "1");
    command.envs(others().into_iter().map(|(setting, text)| (&setting.environment, text)));
    let output = command.output().expect("the child runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let by_flag = flags(&["--kafka".to_owned(), "127.0.0.1:1".to_owned()]).expect("the flag is taken");
    let by_file = file("kafka = '127.0.0.1:2'\nuploads = 7").expect("the file is taken");
    let config = Checked::new(&by_flag.over(by_file)).expect("both are in range").config();
    assert_eq!((config.kafka.port, config.uploads), (1, 7));
    assert_eq!(config.linger_ms, Duration::ZERO);
}

#[test]
fn a_default_may_depend_on_the_store() {
    let (local, remote) = (check("").expect("defaults"), check("store = 's3://b'").expect("a bucket"));
    assert_eq!((local.linger_ms, remote.linger_ms), (Duration::ZERO, Duration::from_millis(100)));
    assert_eq!((local.uploads, remote.uploads), (2, 16));
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let every: String = others().iter().map(|(setting, text)| line(setting, text)).collect();
    for text in ["", "store = 's3://b/p'\nadvertised = '[::1]:9'", &every] {
        let checked = Checked::new(&file(text).expect("it is TOML")).expect("it is in range");
        let printed = checked.to_toml().expect("it is UTF-8");
        for setting in SETTINGS.iter() {
            assert!(printed.contains(setting.name), "{} in {printed}", setting.name);
        }
        assert!(!printed.contains(HIDDEN) && !format!("{checked:?}").contains(HIDDEN), "{printed}");
        let mut again = file(&printed).expect("it is TOML");
        if let Some(hidden) = SETTINGS.iter().find(|row| row.is_secret() && text.contains(row.name)) {
            again.insert(hidden, Value::Secret(Secret(HIDDEN.to_owned())), Origin::Flag(&hidden.flag));
        }
        let again = Checked::new(&again).expect("it is in range");
        assert_eq!(again, checked, "{printed}");
        assert_eq!(again.to_toml().expect("it is UTF-8"), printed);
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    for setting in SETTINGS.iter() {
        let wrong = match &setting.takes {
            Takes::Switch => vec!["1".to_owned()],
            Takes::Number(_, range) => {
                let below = range.start().checked_sub(1);
                below.into_iter().chain([range.end() + 1]).map(|number| number.to_string()).collect()
            }
            Takes::OneOf(..) => vec!["'no such choice'".to_owned(), "1".to_owned()],
            Takes::Text("STORE", _) => ["'ftp://b'", "'s3:///p'", "'file://p'"].map(str::to_owned).into(),
            Takes::Text("JOURNAL", _) => vec!["'ring'".to_owned(), "true".to_owned()],
            Takes::Text("HOST:PORT", _) => vec!["'x'".to_owned(), "':1'".to_owned(), "'x:99999'".to_owned()],
            Takes::Text("FILTER", _) => vec!["'floe=loud'".to_owned()],
            Takes::Text("NAMES", _) => vec!["'http://a'".to_owned(), "'a:80'".to_owned(), "'*'".to_owned()],
            Takes::Path(..) => vec!["''".to_owned()],
            Takes::Text(..) | Takes::Secret(..) => vec!["true".to_owned()],
        };
        for value in wrong {
            let text = format!("# a comment\n{} = {value}", setting.name);
            let message = refused(&text);
            let (origin, range) = ("(from line 2 of floe.toml)", setting.takes.to_string());
            for part in [setting.name, origin, &format!("choose {range}")] {
                assert!(message.contains(part), "`{part}` in `{message}`");
            }
            let shown = value.trim_matches('\'');
            assert!(setting.is_secret() || shown.is_empty() || message.contains(shown), "{message}");
        }
    }
}

#[test]
fn the_address_of_a_journal_is_not_shown_because_it_may_have_a_password() {
    let checked = Checked::new(&file("journal = 'postgres://ann:hush9@host/meta'").expect("it is TOML"));
    let checked = checked.expect("it is in range");
    let printed = checked.to_toml().expect("it is UTF-8");
    assert!(printed.contains("# journal is set and not shown") && !printed.contains("hush9"), "{printed}");
    let JournalPlace::Postgres(Secret(address)) = checked.config().journal.expect("it is set") else {
        panic!("it is an address")
    };
    assert_eq!(address, "postgres://ann:hush9@host/meta");
    assert!(!format!("{:?}", checked.config()).contains("hush9"));
    let message = refused("journal = 'postgre://ann:hush9@host/meta'");
    assert!(message.contains("not readable") && !message.contains("hush9"), "{message}");
    assert!(check("journal = 'bucket'").expect("a kind").journal == Some(JournalPlace::Bucket));
    assert_eq!(check("").expect("defaults").journal, None);
}

#[test]
fn a_message_says_where_the_value_is_from() {
    let refused = |typed: &Typed| format!("{:#}", Checked::new(typed).expect_err("it is out of range"));
    let typed = flags(&["--uploads".to_owned(), "0".to_owned()]).expect("it is a number");
    assert_eq!(refused(&typed), "uploads is 0 (from --uploads): choose 1 to 64");
    let message =
        flags(&["--uploads".to_owned(), "many".to_owned()]).expect_err("it is no number").to_string();
    assert!(message.starts_with("error: uploads is many (from --uploads): choose 1 to 64\n"), "{message}");
    let mut typed = Typed::default();
    let uploads = SETTINGS.iter().find(|setting| setting.name == "uploads").expect("a row");
    typed.insert(uploads, Value::Number(65), Origin::Environment(&uploads.environment));
    let expected = "uploads is 65 (from the environment variable FLOE_UPLOADS): choose 1 to 64";
    assert_eq!(refused(&typed), expected);
}

#[test]
fn the_memory_for_appends_must_hold_a_request() {
    let message = refused("frame_bytes = 1000000000");
    for part in ["append_bytes is 268435456 (by default)", "at least 2000000000", "from line 1 of floe.toml"]
    {
        assert!(message.contains(part), "`{part}` in `{message}`");
    }
    refused("frame_bytes = 1000000000\nappend_bytes = 1999999999");
    check("frame_bytes = 1000000000\nappend_bytes = 2000000000").expect("it holds one");
}

#[test]
fn a_key_that_is_no_setting_is_refused_with_the_nearest_name() {
    for (key, nearest) in
        [("linger", "linger_ms"), ("conections", "connections"), ("'sql-timeout-ms'", "sql_timeout_ms")]
    {
        let message = refused(&format!("uploads = 1\n\n{key} = 1"));
        for part in [key.trim_matches('\''), "line 3 of floe.toml", &format!("nearest name is {nearest};")] {
            assert!(message.contains(part), "`{part}` in `{message}`");
        }
    }
}

#[test]
fn a_variable_that_looks_like_a_setting_is_told() {
    let told = |name: &str| misspelt(std::iter::once(name.to_owned())).pop().map(|(_, nearest)| nearest);
    assert_eq!(told("FLOE_CONECTIONS"), Some("FLOE_CONNECTIONS"));
    assert_eq!(told("FLOE_SQL_TIMEOUTMS"), Some("FLOE_SQL_TIMEOUT_MS"));
    for other in ["FLOE_CONNECTIONS", "FLOE_CONFIG", "FLOE_BIN", "FLOE_CACHE", "FLOE_", "CONECTIONS"] {
        assert_eq!(told(other), None, "{other}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_place() {
    let message = refused("uploads = ");
    assert!(message.contains("cannot use floe.toml") && message.contains("line 1"), "{message}");
}
