//! docs/metrics.md, written from the table: run the test with `UPDATE=1` after changing a row. And the table has what
//! the sources of all crates count, no more and no less.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::help::{Kind, METRICS, Metric};

const HEAD: &str = "\
# Metrics

Written from `crates/http/src/help.rs` by a test; do not edit.

`GET /metrics` answers in Prometheus' text format. A metric is there once it has a value. A counter only rises, from 0
at the start of the broker; a gauge rises and falls; a histogram counts values by their size. Labels and their values
are in backquotes. The first 100 topics have a `topic` of their own, the others share `(others)`.
";

/// The sections of the page by the second word of the names.
const SECTIONS: &[(&str, &str)] = &[
    ("history", "The history"),
    ("http", "HTTP"),
    ("kafka", "Kafka's protocol and groups"),
    ("lake", "Tables"),
    ("log", "The log"),
    ("meta", "Metadata"),
    ("process", "The process"),
    ("sql", "SQL"),
    ("store", "The store"),
    ("view", "Views"),
];

/// Names that only tests count under.
const OF_TESTS: &str = "floe_test_";

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for Metric { name, kind, unit, words } in METRICS {
        let part = name.split('_').nth(1).expect("names have parts");
        if section != part {
            section = part;
            let (_, title) = SECTIONS.iter().find(|(known, _)| *known == part).expect("a known section");
            let columns = "| metric | kind | unit | what it tells |\n|---|---|---|---|\n";
            write!(page, "\n## {title}\n\n{columns}").expect("a string");
        }
        writeln!(page, "| `{name}` | {} | {unit} | {words} |", kind.word()).expect("a string");
    }
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &page).expect("the page can be written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "docs/metrics.md is out of date: run this test with UPDATE=1");
}

#[test]
fn the_table_is_in_order_and_units_fit_the_names() {
    assert!(METRICS.is_sorted_by(|one, next| one.name < next.name), "sorted, and no name twice");
    for Metric { name, kind, unit, words } in METRICS {
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}: counters end in _total");
        let stem = name.trim_end_matches("_total");
        for suffix in ["bytes", "seconds"] {
            assert_eq!(stem.ends_with(&format!("_{suffix}")), *unit == suffix, "{name} is in {unit}");
        }
        assert!(words.ends_with('.') && !words.contains('|'), "{name}: {words}");
    }
}

/// One place of the sources that names a metric.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    name: String,
    /// The word of the macro, unless the name is kept for a later use.
    kind: Option<&'static str>,
    labels: Vec<String>,
}

/// What the text of a source names: each literal `"floe_<part>_<more>"`.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("\"floe_") {
        let rest = &text[at + 1..];
        let name: String = rest.chars().take_while(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')).collect();
        let is_name = rest[name.len()..].starts_with('"') && name.matches('_').count() >= 2;
        if !is_name || name.starts_with(OF_TESTS) {
            continue;
        }
        let before = text[..at].trim_end();
        let kinds = [Kind::Counter, Kind::Gauge, Kind::Histogram].map(Kind::word);
        let kind = kinds.into_iter().find(|kind| before.ends_with(&format!("{kind}!(")));
        let labels = kind.map(|_| labels(&rest[name.len() + 1..])).unwrap_or_default();
        found.push(Use { name, kind, labels });
    }
    found
}

/// The labels of a macro's call, from behind the name to its closing parenthesis.
fn labels(rest: &str) -> Vec<String> {
    let mut depth = 1;
    let end = rest.find(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    let call = &rest[..end.unwrap_or(rest.len())];
    let label = |before: &str| before.trim_end().strip_suffix('"')?.rsplit('"').next().map(str::to_owned);
    let parts: Vec<&str> = call.split("=>").collect();
    parts[..parts.len() - 1].iter().filter_map(|before| label(before)).collect()
}

/// The texts of all sources but the table, by their paths.
fn sources() -> BTreeMap<PathBuf, String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> =
        entries(&crates).into_iter().map(|path| path.join("src")).filter(|path| path.is_dir()).collect();
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("http/src/help.rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.insert(path, text);
            }
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository can be read");
    entries.map(|entry| entry.expect("an entry can be read").path()).collect()
}

#[test]
fn every_metric_has_words_and_all_words_have_a_metric() {
    let table: BTreeMap<&str, &Metric> = METRICS.iter().map(|metric| (metric.name, metric)).collect();
    let (mut wrong, mut counted) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources() {
        for Use { name, kind, labels } in uses(&text) {
            let shown = path.display();
            let Some(metric) = table.get(name.as_str()) else {
                wrong.push(format!("{shown}: {name} has no row in crates/http/src/help.rs"));
                continue;
            };
            if kind.is_some_and(|kind| kind != metric.kind.word()) {
                wrong.push(format!("{shown}: {name} is no {}", metric.kind.word()));
            }
            let unsaid = labels.into_iter().filter(|label| !metric.words.contains(&format!("`{label}`")));
            wrong.extend(unsaid.map(|label| format!("{name}: its words lack the label `{label}`")));
            counted.insert(name);
        }
    }
    let idle = METRICS.iter().filter(|metric| !counted.contains(metric.name));
    wrong.extend(idle.map(|metric| format!("{} has words, and no source counts it", metric.name)));
    assert!(wrong.is_empty(), "metrics and their words differ:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_names_kinds_and_labels() {
    let text = concat!(
        "metrics::counter!(\n    \"floe_log_a_total\", \"lane\" => name(x), \"to\" => y).increment(f(\"z\" => 1));\n",
        "let name = \"floe_log_b\"; log(\"floe_sql=debug\", \"floe_sql\"); gauge!(\"floe_test_c\").set(1.0);\n",
    );
    // Without the common beginning, so that this file names no metrics.
    let used = |name: &str, kind, labels: &[&str]| Use {
        name: format!("floe_{name}"),
        kind,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    assert_eq!(uses(text), [used("log_a_total", Some("counter"), &["lane", "to"]), used("log_b", None, &[])]);
}
