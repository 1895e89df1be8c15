//! `floe table`: mends the table of a topic on a running broker, through its HTTP address.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::{TableAction, TableArgs};
use crate::client::HttpClient;
use crate::term::{say, say_stderr, things};

/// How often the broker is asked how far it is.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the command.
pub(crate) async fn run(args: TableArgs) -> Result<()> {
    let server = HttpClient::new(&args.server)?;
    let TableAction::Rebuild { name, lose, no_wait } = args.action;
    let begun = server.post(&["api", "v1", "tables", &name, "rebuild"], &json!({ "lose": lose })).await;
    let begun = begun.with_context(|| format!("cannot rebuild the table {name}"))?;
    let lost = begun["rows_lost"].as_u64().unwrap_or_default();
    if lost > 0 && !args.json {
        let rows = things(lost, "row");
        say_stderr(&format!("this loses up to {rows}, which the log does not have any more"));
    }
    if no_wait {
        let text = format!("the table {name} is being rebuilt");
        say(&if args.json {
            json!({ "table": name, "outcome": "begun", "rows_lost": lost }).to_string()
        } else {
            text
        })?;
        return Ok(());
    }
    let mut told = String::new();
    let table = loop {
        let table = server.get(&["api", "v1", "tables", &name]).await?;
        let table = table.with_context(|| format!("there is no table {name} any more"))?;
        if table["rebuild"].is_null() {
            break table;
        }
        let line = progress(&table["rebuild"]);
        if line != told && !line.is_empty() && !args.json {
            say_stderr(&line);
        }
        told = line;
        tokio::time::sleep(ASK_INTERVAL).await;
    };
    say(&if args.json {
        json!({ "table": name, "outcome": "rebuilt", "rows": table["rows"], "rows_lost": lost }).to_string()
    } else {
        let count = |name: &str, thing: &str| things(table[name].as_u64().unwrap_or_default(), thing);
        format!("rebuilt the table {name}: {} in {}", count("rows", "row"), count("files", "file"))
    })?;
    Ok(())
}

/// How far a rebuilding is, in a line for people.
fn progress(rebuild: &Value) -> String {
    match rebuild["stands_still"]["why"].as_str() {
        Some(why) => format!("it STANDS STILL and is tried again: {why}"),
        // It has not begun to read, or has just ended.
        None if rebuild["lag"].as_u64().unwrap_or_default() == 0 => String::new(),
        None => format!("{} to read", things(rebuild["lag"].as_u64().unwrap_or_default(), "record")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_how_far_it_is() {
        assert_eq!(progress(&json!({ "lag": 7, "stands_still": null })), "7 records to read");
        assert_eq!(progress(&json!({ "lag": 1, "stands_still": null })), "1 record to read");
        assert_eq!(progress(&json!({ "lag": 0, "stands_still": null })), "");
        let still = json!({ "lag": 7, "stands_still": { "why": "the store is full" } });
        assert_eq!(progress(&still), "it STANDS STILL and is tried again: the store is full");
    }
}
