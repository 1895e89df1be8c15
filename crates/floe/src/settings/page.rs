//! docs/settings.md, written from the table: run the test with `UPDATE=1` after changing a row.

use std::fmt::Write as _;
use std::path::Path;

use crate::settings::table::SETTINGS;
use crate::settings::words;

const HEAD: &str = "\
# Settings

Written from `crates/floe/src/settings/table.rs` by a test; do not edit.

Each setting of `floe serve` is a flag, an environment variable and a key of a TOML file. A flag wins over the
environment, the environment over the file, the file over the default. `--config FILE` or `FLOE_CONFIG` names the file:

```toml
kafka = \"0.0.0.0:9092\"
advertised = \"broker1.example:9092\"
sql_memory_bytes = 1073741824
```

`floe serve --print-config` prints the settings that would be used, as such a file, and stops. Sizes are in bytes, times
in milliseconds. A value out of range and an unknown key keep the broker from starting; the message says where the value
is from and what to choose.
";

const COLUMNS: &str = "\
| key | flag | environment | what it is | default | takes |
|---|---|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for setting in SETTINGS.iter() {
        if section != setting.section {
            section = setting.section;
            write!(page, "\n## {section}\n\n{COLUMNS}").expect("a string");
        }
        writeln!(
            page,
            "| `{}` | `--{} {}` | `{}` | {} | {} | {} |",
            setting.name,
            setting.flag,
            setting.takes.shown(),
            setting.environment,
            setting.words,
            words::preset(setting),
            setting.takes,
        )
        .expect("a string");
    }
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "docs/settings.md is out of date: run this test with UPDATE=1");
}
