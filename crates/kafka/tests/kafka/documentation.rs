//! docs/kafka-apis.md is written from the table of APIs. Run this test with `UPDATE=1` after a change of the table.

use std::fmt::Write as _;
use std::path::Path;

use floe_kafka::APIS;
use floe_wire::ApiKey;

#[test]
fn the_page_says_what_the_table_says() {
    let mut page = String::from(
        "# Kafka APIs\n\nWritten from `crates/kafka/src/api/table.rs` by a test; do not edit.\n\n\
         | API | number | versions | handler | operation |\n|---|---|---|---|---|\n",
    );
    for api in APIS {
        let (name, number, handler, right) = (api.name, api.key.number(), api.handler_name, api.operation);
        writeln!(page, "| {name} | {number} | {} to {} | `{handler}` | {right:?} |", api.min, api.max)
            .expect("a string");
    }
    let served = |key: &&ApiKey| APIS.iter().any(|api| api.key == **key);
    let others: Vec<&str> = ApiKey::ALL.iter().filter(|key| !served(key)).map(|key| key.name()).collect();
    page.push_str(
        "\nThe operation is the right that a client will need once there is authentication. ApiVersions offers Produce\n\
         from version 0 on, as Kafka 4 does. Requests below version 3 are not answered.\n\n\
         The other APIs are not offered. A request closes the connection with a line in the log, as in Kafka:\n",
    );
    for line in others.chunks(5) {
        writeln!(page, "- {}", line.join(", ")).expect("a string");
    }

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kafka-apis.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "docs/kafka-apis.md is out of date: run this test with UPDATE=1");
}
