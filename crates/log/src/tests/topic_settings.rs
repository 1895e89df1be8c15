//! docs/topic-settings.md, written from the table: run the test with `UPDATE=1` after changing a row.

use std::fmt::Write as _;
use std::path::Path;

use crate::map::topic_config::TOPIC_CONFIGS;

const HEAD: &str = "\
# Topic settings

Written from `crates/log/src/map/topic_config.rs` by a test; do not edit.

Settings of a topic are given when it is created (`floe topic create NAME --config key=value`, or any Kafka tool).
Names, types and defaults are those of Apache Kafka 4; those that begin with `floe.` are Floe's own. Every setting
is checked. One that is kept for tools only can be set and is described, and nothing else follows from it.

A topic has one replica, whatever replication factor is asked for: the store keeps the copies. So any factor from 1
on is taken, also one above the number of brokers, which Kafka would refuse.

| setting | effect | default | what it is |
|---|---|---|---|
";

#[test]
fn the_page_says_what_the_table_says() {
    let mut page = HEAD.to_owned();
    for setting in TOPIC_CONFIGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let (name, effect, doc) = (setting.name, setting.effect.words(), setting.doc);
        writeln!(page, "| `{name}` | {effect} | {default} | {doc} |").expect("a string");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topic-settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "docs/topic-settings.md is out of date: run this test with UPDATE=1");
}
