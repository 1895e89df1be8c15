//! The engine's messages in words for somebody who knows only the statement and Floe's settings, with what to do.

use floe_query::Kind;

/// Says a message of the engine for people.
pub(crate) fn for_people(message: &str) -> String {
    let known = [table, function, overflow, zone, clocks, spilled, nowhere_to_spill];
    known.iter().find_map(|known| known(message)).unwrap_or_else(|| tidied(message))
}

/// What is wrong with a file that the engine spills, and its kind.
pub(crate) fn of_spill_file(message: &str) -> (Kind, String) {
    let message = message.trim_start_matches("Io error: ");
    match spilled(message) {
        Some(limit) => (Kind::Limit, limit),
        None => (Kind::Unavailable, format!("what the statement spilled to disk cannot be kept: {message}")),
    }
}

fn table(message: &str) -> Option<String> {
    let is_missing = message.starts_with("table '") && message.ends_with("' not found");
    is_missing.then(|| {
        if message == "table 'floe.default.commits' not found" {
            return format!("{message}; the history of commits is system.commits, and SHOW TABLES lists the tables");
        }
        format!(
            "{message}; SHOW TABLES lists the tables, and a topic is one if it was created with floe.table=json or \
             floe.table=raw, which cannot be set later"
        )
    })
}

fn function(message: &str) -> Option<String> {
    let (before, _) = message.split_once(" failed to match any signature")?;
    let (_, name) = before.split_once("Function ")?;
    let received = message.split_once(" but received ").and_then(|(_, rest)| rest.split_once(" (DataType"));
    let kind = received.map_or("values of these types", |(kind, _)| kind);
    Some(format!("{name} takes no {kind}; CAST the argument to a type that it takes"))
}

fn overflow(message: &str) -> Option<String> {
    let (_, operation) = message.split_once("Overflow happened on: ")?;
    Some(format!(
        "overflow: the result of {operation} does not fit its type; CAST(x AS double) or CAST(x AS decimal(38, 0)) \
         has room"
    ))
}

fn zone(message: &str) -> Option<String> {
    let (_, name) = message.split_once("Invalid timezone \"")?;
    let (name, _) = name.split_once('"')?;
    Some(floe_engine::correct::no_zone(name))
}

fn clocks(message: &str) -> Option<String> {
    message.contains("Cannot cast timezone to different timezone").then(|| {
        "the clocks of the zone skip a time, or show it twice, so it is no moment there; give the time with its \
         offset, as in TIMESTAMP WITH TIME ZONE '2026-10-25 02:30:00+02:00'"
            .to_owned()
    })
}

fn spilled(message: &str) -> Option<String> {
    if !message.contains("The used disk space during the spilling process") {
        return None;
    }
    let most = message.split_once("allowable limit of ").and_then(|(_, rest)| rest.split_once(". "));
    let most = most.map_or_else(String::new, |(most, _)| format!(" ({most})"));
    Some(format!(
        "the statement has spilled to disk as much as it may{most}; use LIMIT or a filter before sorting and grouping, \
         select fewer columns, or raise sql_spill_bytes, which all statements share and of which a nearly full disk \
         gives less"
    ))
}

fn nowhere_to_spill(message: &str) -> Option<String> {
    message.contains("(DiskManager is disabled)").then(|| {
        "the statement needs more memory than it may have, and cannot spill to disk: sql_spill_bytes is 0, or the disk \
         is nearly full; use LIMIT or a filter before sorting and grouping, or select fewer columns"
            .to_owned()
    })
}

/// The engine speaks of a star that no statement needs to have, and of its settings, which nobody can set.
fn tidied(message: &str) -> String {
    let message = message.split(", currently only ").next().unwrap_or_default();
    message
        .replace("While expanding wildcard, ", "")
        .replace(" or disable the datafusion.sql_parser.enable_ident_normalization configuration", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_for_people() {
        let check = |engine: &str, expected: &str| assert_eq!(for_people(engine), expected);
        check(
            "table 'floe.default.x' not found",
            "table 'floe.default.x' not found; SHOW TABLES lists the tables, and a topic is one if it was created with \
             floe.table=json or floe.table=raw, which cannot be set later",
        );
        check(
            "table 'floe.default.commits' not found",
            "table 'floe.default.commits' not found; the history of commits is system.commits, and SHOW TABLES lists \
             the tables",
        );
        check(
            "Internal error: Function 'sum' failed to match any signature, errors: Error during planning: Function \
             'sum' requires Decimal, but received String (DataType: Utf8).",
            "'sum' takes no String; CAST the argument to a type that it takes",
        );
        check(
            "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"t.id\" \
             must appear in the GROUP BY clause or must be part of an aggregate function, currently only \"count(*)\" \
             appears in the SELECT clause satisfies this requirement",
            "Column in SELECT must be in GROUP BY or an aggregate function: column \"t.id\" must appear in the GROUP BY \
             clause or must be part of an aggregate function",
        );
        check(
            "Arithmetic overflow: Overflow happened on: 9223372036854775807 + 1",
            "overflow: the result of 9223372036854775807 + 1 does not fit its type; CAST(x AS double) or \
             CAST(x AS decimal(38, 0)) has room",
        );
        check("anything else", "anything else");
    }

    #[test]
    fn limits_are_those_of_floes_settings() {
        let (kind, spilled) = of_spill_file(
            "Io error: The used disk space during the spilling process has exceeded the allowable limit of 1024.0 KB. \
             Please try increasing the config: `datafusion.runtime.max_temp_directory_size`.",
        );
        assert!(spilled.contains("as much as it may (1024.0 KB);"), "{spilled}");
        assert!(kind == Kind::Limit && spilled.contains("raise sql_spill_bytes"), "{spilled}");
        let full = of_spill_file("Io error: No space left on device (os error 28)");
        let said = "what the statement spilled to disk cannot be kept: No space left on device (os error 28)";
        assert_eq!(full, (Kind::Unavailable, said.to_owned()));
        let nowhere = for_people("Memory Exhausted while Sorting (DiskManager is disabled)");
        for said in [spilled, nowhere] {
            assert!(!said.contains("datafusion") && !said.contains("DiskManager"), "{said}");
        }
    }
}
