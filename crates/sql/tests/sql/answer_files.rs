//! Runs the files of `answers/`: statements with their right answers, before and after the lake has the records.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use floe_query::QueryError;
use floe_sql::Config;

use crate::world::World;

/// A statement of a file.
struct Case {
    place: String,
    text: String,
    expected: Expected,
}

enum Expected {
    Rows(Vec<String>),
    /// A part of the message.
    Error(String),
}

/// Reads the statements of a file.
fn cases(name: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let place = format!("{name}:{}", at + 1);
        let mut until = |end: &str| {
            let rest = lines.by_ref().map(|(_, line)| line);
            rest.take_while(|line| *line != end).map(str::to_owned).collect::<Vec<_>>()
        };
        if line == "query" {
            let text = until("----").join("\n");
            cases.push(Case { place, text, expected: Expected::Rows(until("")) });
        } else if let Some(message) = line.strip_prefix("error ") {
            cases.push(Case {
                place,
                text: until("").join("\n"),
                expected: Expected::Error(message.to_owned()),
            });
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{place}: not a query, an error or a comment");
        }
    }
    cases
}

/// The rows of an answer, a line each.
async fn answer(world: &World, text: &str) -> Result<Vec<String>, QueryError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in world.rows(text).await? {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().unwrap();
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|column| column.value(row).to_string());
            rows.push(values.collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(rows)
}

/// Whether the statement itself orders its rows.
fn is_ordered(text: &str) -> bool {
    text.rsplit(')').next().is_some_and(|end| end.contains(" order by "))
}

/// What is wrong with an answer.
async fn fault(world: &World, case: &Case) -> Option<String> {
    match (answer(world, &case.text).await, &case.expected) {
        (Ok(mut rows), Expected::Rows(expected)) => {
            let mut expected = expected.clone();
            if !is_ordered(&case.text) {
                rows.sort();
                expected.sort();
            }
            (rows != expected).then(|| format!("{rows:#?}"))
        }
        (Err(error), Expected::Error(part)) => {
            let found = error.message.to_lowercase().contains(&part.to_lowercase());
            (!found).then(|| error.to_string())
        }
        (Ok(rows), Expected::Error(_)) => Some(format!("{rows:#?}")),
        (Err(error), Expected::Rows(_)) => Some(format!("{:?}: {error}", error.kind)),
    }
}

/// The tables of `tables.txt`.
async fn tables(folder: &Path) -> World {
    let world = World::new().await;
    let text = std::fs::read_to_string(folder.join("tables.txt")).unwrap();
    for table in text.split("table ").filter(|table| !table.is_empty()) {
        let mut lines = table.lines();
        let name = lines.next().unwrap();
        let topic = world.table(name, 1).await;
        world.append(&topic, 0, &lines.collect::<Vec<_>>()).await;
    }
    world
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/answers")
}

/// The statements of all files.
fn all_cases() -> Vec<Case> {
    let folder = folder();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".txt") && name != "tables.txt")
        .collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        all.extend(cases(&name, &std::fs::read_to_string(folder.join(&name)).unwrap()));
    }
    assert!(all.len() > 50, "the files were found");
    all
}

/// A process of its own gives the same rows and the same errors, with their kind, their place and their text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_answers_as_this_process_does() {
    let here = tables(&folder()).await;
    let config = Config { threads: 2, ..Config::default() };
    for settled in [false, true] {
        let mut expected = Vec::new();
        for case in all_cases() {
            expected.push((answer(&here, &case.text).await, case));
        }
        let there = here.share().with_workers(config.clone());
        for (expected, case) in expected {
            let (mut got, mut expected) = (answer(&there, &case.text).await, expected);
            for error in [&mut got, &mut expected].into_iter().filter_map(|answer| answer.as_mut().err()) {
                // Of names that are equally near, the engine suggests any.
                let end = error.message.find("\nDid you mean").unwrap_or(error.message.len());
                error.message.truncate(end);
            }
            for rows in [&mut got, &mut expected].into_iter().flatten() {
                if !is_ordered(&case.text) {
                    rows.sort();
                }
            }
            assert_eq!(got, expected, "settled: {settled}, {}: {}", case.place, case.text);
        }
        if !settled {
            here.settle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_the_files_is_right() {
    let all = all_cases();
    let world = tables(&folder()).await;
    for settled in [false, true] {
        let mut faults = String::new();
        for case in &all {
            if let Some(fault) = fault(&world, case).await {
                writeln!(faults, "{}: {}\n{fault}", case.place, case.text).unwrap();
            }
        }
        assert!(faults.is_empty(), "settled: {settled}\n{faults}");
        if !settled {
            world.settle().await;
        }
    }
}
