//! Reads the engine's errors: their kind, and their place in the statement.

use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use tokio::task::JoinError;

use floe_query::{Kind, Place, QueryError};

use crate::fault::{is_overflow, too_long};
use crate::limits::MESSAGE_CHARS_MAX;
use crate::words;

/// Reads an error of the engine: its message, its kind and its place in `text`.
pub(crate) fn of(error: &DataFusionError, text: &str) -> QueryError {
    if let Some(ours) = find_ours(error) {
        return ours.clone();
    }
    let root = error.find_root();
    if (is_panic(error) || matches!(root, DataFusionError::ArrowError(..))) && is_overflow(&error.to_string())
    {
        return too_long();
    }
    let (kind, message) = match (is_panic(error), is_correlation(error)) {
        (true, _) => (Kind::Internal, root.strip_backtrace()),
        (false, true) => return QueryError::new(Kind::Invalid, CORRELATION),
        (false, false) => describe(root),
    };
    let place = match root {
        DataFusionError::SQL(parser, _) => {
            parser_place(parser).or_else(|| message.ends_with("found: EOF").then(|| end_of(text)))
        }
        _ => error.diagnostic().and_then(diagnostic_place),
    };
    let place = place.or_else(|| named_place(&message, text));
    QueryError::new(kind, shortened(&words::for_people(without_place(&message)))).placed(text, place)
}

/// The error of a statement that is refused before the engine sees it. What the message quotes first is its place.
pub(crate) fn refused(message: &str, text: &str) -> QueryError {
    QueryError::new(Kind::Invalid, message).placed(text, named_place(message, text))
}

/// Finds an error of our own code inside the errors that the engine wrapped around it.
fn find_ours(error: &DataFusionError) -> Option<&QueryError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<QueryError>() {
            return Some(ours);
        }
        next = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner)) => {
                Some(inner.as_ref())
            }
            _ => error.source(),
        };
    }
    None
}

/// Whether a task of the engine panicked.
fn is_panic(error: &DataFusionError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<JoinError>() || error.is::<Arc<JoinError>>() {
            return true;
        }
        next = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Context(_, inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    false
}

/// The message of a file that the engine cannot write or read. It has no files but those that it spills.
fn spill_file(root: &DataFusionError) -> Option<String> {
    match root {
        DataFusionError::ArrowError(inner, _) if matches!(**inner, ArrowError::IoError(..)) => {
            Some(inner.to_string())
        }
        DataFusionError::IoError(inner) => Some(inner.to_string()),
        _ => None,
    }
}

/// What to do about a subquery that the engine cannot join to its outer query.
const CORRELATION: &str = "a subquery depends on its outer query in a way that cannot be run: it is a value that may \
                           have two rows (use an aggregate or LIMIT 1), or it stands in the condition of a join, or \
                           a FULL JOIN, ROLLUP or recursion stands between it and the column that it names; write it \
                           as a join";

/// Whether the engine did not get rid of a correlated subquery. It says so in words of its own plans.
fn is_correlation(error: &DataFusionError) -> bool {
    const SAYS: &[&str] = &[
        "Accessing outer reference columns is not allowed",
        "Correlated scalar subquery",
        "In/Exist/SetComparison subquery can only be used",
        "No field named __correlated_sq_",
        "No field named __scalar_sq_",
        "Optimizer rule 'decorrelate_lateral_join' failed",
        "Optimizer rule 'decorrelate_predicate_subquery' failed",
        "Optimizer rule 'scalar_subquery_to_join' failed",
        "Physical plan does not support logical expression Exists",
        "Physical plan does not support logical expression InSubquery",
        "Physical plan does not support logical expression OuterReferenceColumn",
        "Physical plan does not support logical expression ScalarSubquery",
        "Unsupported Subquery plan",
        "Valid fields are __correlated_sq_",
        "Valid fields are __scalar_sq_",
        "scalar correlated subquery cannot contain",
    ];
    let planning = matches!(
        error.find_root(),
        DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) | DataFusionError::SchemaError(..)
    );
    planning && {
        let text = error.to_string();
        SAYS.iter().any(|says| text.contains(says))
    }
}

/// Whether columns do not fit their own schema. No statement can ask for that.
fn is_schema_fault(error: &ArrowError) -> bool {
    matches!(error, ArrowError::InvalidArgumentError(text) if text.starts_with("column types must match"))
}

fn describe(root: &DataFusionError) -> (Kind, String) {
    if let Some(message) = spill_file(root) {
        return words::of_spill_file(&message);
    }
    let kind = match root {
        DataFusionError::ResourcesExhausted(_) => Kind::Limit,
        DataFusionError::SQL(inner, _) if matches!(**inner, ParserError::RecursionLimitExceeded) => {
            Kind::Limit
        }
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => Kind::Internal,
        DataFusionError::ArrowError(inner, _) if is_schema_fault(inner) => Kind::Internal,
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    let text = match root {
        DataFusionError::SQL(inner, _) => match inner.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
        },
        DataFusionError::Collection(all) => {
            all.first().map_or_else(|| root.strip_backtrace(), |first| first.strip_backtrace())
        }
        other => other.message().into_owned(),
    };
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    (kind, text.trim_end_matches(['.', '\n', ' ']).to_owned())
}

fn parser_place(error: &ParserError) -> Option<Place> {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            written_place(text).map(|(_, p)| p)
        }
        ParserError::RecursionLimitExceeded => None,
    }
}

/// The place after the last character that is not blank.
fn end_of(text: &str) -> Place {
    let text = text.trim_end();
    let line = text.rsplit('\n').next().unwrap_or_default();
    Place { line: text.matches('\n').count() as u64 + 1, column: line.chars().count() as u64 + 1, width: 1 }
}

/// Reads the place that the parser appends to its message: `... at Line: 1, Column: 8`. Also returns where that begins.
fn written_place(text: &str) -> Option<(usize, Place)> {
    let start = text.rfind(" at Line: ")?;
    let (line, column) = text[start + " at Line: ".len()..].split_once(", Column: ")?;
    let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
    let place = Place { line: line.parse().ok()?, column: column[..digits].parse().ok()?, width: 1 };
    (place.line > 0 && place.column > 0).then_some((start, place))
}

fn without_place(message: &str) -> &str {
    written_place(message).map_or(message, |(start, _)| &message[..start])
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn diagnostic_place(diagnostic: &Diagnostic) -> Option<Place> {
    let notes = diagnostic.notes.iter().map(|note| note.span);
    let span = std::iter::once(diagnostic.span).chain(notes).flatten().next()?;
    let width = match span.end.line == span.start.line {
        true => span.end.column.saturating_sub(span.start.column),
        false => 1,
    };
    (span.start.line > 0).then_some(Place {
        line: span.start.line,
        column: span.start.column.max(1),
        width: width.max(1),
    })
}

/// The place for an error that carries none: the first name that the message quotes and the statement contains.
fn named_place(message: &str, text: &str) -> Option<Place> {
    quoted(message).find_map(|name| {
        let parts = std::iter::once(name).chain(name.rsplit('.').next());
        parts.filter(|part| !part.is_empty()).find_map(|part| find_word(text, part))
    })
}

/// Every text in quotes of any kind, then every word after `named`, which the engine does not quote.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    let between = |quote: char| message.split(quote).skip(1).step_by(2);
    let named = message.split(" named ").skip(1).filter_map(|rest| rest.split_ascii_whitespace().next());
    let named = named.map(|word| word.trim_end_matches(['.', ',', ';']));
    between('\'').chain(between('"')).chain(between('`')).chain(named)
}

fn find_word(text: &str, word: &str) -> Option<Place> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let haystack = text.to_ascii_lowercase();
    let needle = word.to_ascii_lowercase();
    let start = haystack.match_indices(&needle).map(|(start, _)| start).find(|start| {
        let before = haystack[..*start].chars().next_back();
        let after = haystack[start + needle.len()..].chars().next();
        let starts = before.is_none_or(|c| !is_part(c)) || !needle.starts_with(is_part);
        let ends = after.is_none_or(|c| !is_part(c)) || !needle.ends_with(is_part);
        starts && ends
    })?;
    let line = haystack[..start].matches('\n').count() + 1;
    let line_start = haystack[..start].rfind('\n').map_or(0, |newline| newline + 1);
    Some(Place {
        line: line as u64,
        column: haystack[line_start..start].chars().count() as u64 + 1,
        width: needle.chars().count() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_is_a_fault_of_the_engine() {
        let task = datafusion::common::runtime::SpawnedTask::spawn(async { panic!("a planted panic") });
        let panic: Arc<JoinError> = Arc::new(task.join().await.unwrap_err());
        let error = DataFusionError::External(Box::new(panic)).context("Join Error");
        assert_eq!(of(&error, "select 1").kind, Kind::Internal);
        let task =
            datafusion::common::runtime::SpawnedTask::spawn(async { panic!("byte array offset overflow") });
        let panic: Arc<JoinError> = Arc::new(task.join().await.unwrap_err());
        let error = DataFusionError::External(Box::new(panic)).context("Join Error");
        assert_eq!(of(&error, "select 1").kind, Kind::Limit);
        let error = DataFusionError::from(ArrowError::OffsetOverflowError(2_148_000_000));
        assert_eq!(of(&error, "select 1").kind, Kind::Limit);
        let error = ArrowError::InvalidArgumentError("column types must match schema types".to_owned());
        assert_eq!(of(&DataFusionError::from(error), "select 1").kind, Kind::Internal);
    }

    #[test]
    fn places_are_read_from_the_parsers_text() {
        let text = "sql parser error: Expected: an expression, found: EOF at Line: 12, Column: 34";
        let (_, place) = written_place(text).unwrap();
        assert_eq!(place, Place { line: 12, column: 34, width: 1 });
        assert_eq!(without_place(text), "sql parser error: Expected: an expression, found: EOF");
        for text in ["", " at Line: x, Column: 1", " at Line: 0, Column: 0", "at Line: 1"] {
            assert!(written_place(text).is_none(), "{text}");
        }
    }

    #[test]
    fn names_are_found_as_whole_words() {
        let check = |message: &str, text: &str, expected: Option<(u64, u64, u64)>| {
            let place = named_place(message, text).map(|p| (p.line, p.column, p.width));
            assert_eq!(place, expected, "{message}");
        };
        check("table 'floe.default.air' not found", "select airy,\n air from air", Some((2, 2, 3)));
        check("Cannot cast string 'a b' to Int64", "select cast('a b' as bigint)", Some((1, 14, 3)));
        check("table 'x' not found", "select ä from y", None);
        check("No field named c. Valid fields are a", "select a from b group by c", Some((1, 26, 1)));
        check("no quotes", "select 1", None);
        check("'ö' is bad", "select ä, ö", Some((1, 11, 1)));
    }
}
