//! Why a statement has no result, and where in its text.

use std::fmt::{self, Write as _};

use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::limits::{MESSAGE_CHARS_MAX, SNIPPET_CHARS};

/// A place in a statement, in characters, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Characters that are meant; at least 1.
    pub width: u64,
}

/// What kind of error; the fronts turn it into their protocol's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The statement is wrong.
    Invalid,
    /// The statement needs more than the limits allow.
    Limit,
    /// Too many statements are running; try again.
    Busy,
    /// The log, the store or the lake cannot be read at the moment; try again.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// Why a statement has no result. Its text shows the place with a line of the statement and a caret below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What kind of error.
    pub kind: Kind,
    /// What is wrong and what to do, in one sentence, without the place.
    pub message: String,
    /// Where, if it is at a place.
    pub place: Option<Place>,
    /// The line of the statement at that place.
    line: Option<String>,
}

impl std::error::Error for SqlError {}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let Some(place) = self.place else { return Ok(()) };
        write!(f, " (line {}, column {})", place.line, place.column)?;
        match &self.line {
            Some(line) => write!(f, "\n{}", snippet(line, place)),
            None => Ok(()),
        }
    }
}

impl SqlError {
    /// An error without a place.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> SqlError {
        SqlError { kind, message: message.into(), place: None, line: None }
    }

    /// An error at a place of `text`.
    #[must_use]
    pub fn at(kind: Kind, message: impl Into<String>, text: &str, place: Place) -> SqlError {
        SqlError::new(kind, message).placed(text, Some(place))
    }

    fn placed(mut self, text: &str, place: Option<Place>) -> SqlError {
        let Some(place) = place else { return self };
        let index = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
        self.line = text.lines().nth(index).map(str::to_owned);
        self.place = Some(Place { width: place.width.max(1), ..place });
        self
    }

    /// Reads an error of the engine: what it says, what kind it is, where in `text` it points.
    #[must_use]
    pub fn of(error: &DataFusionError, text: &str) -> SqlError {
        if let Some(ours) = find_ours(error) {
            return ours.clone();
        }
        let root = error.find_root();
        let (kind, message) = describe(root);
        let place = match root {
            DataFusionError::SQL(parser, _) => {
                parser_place(parser).or_else(|| message.ends_with("found: EOF").then(|| end_of(text)))
            }
            _ => error.diagnostic().and_then(diagnostic_place),
        };
        let place = place.or_else(|| named_place(&message, text));
        SqlError::new(kind, shortened(without_place(&message))).placed(text, place)
    }
}

/// An error of our own code that travelled through the engine.
fn find_ours(error: &DataFusionError) -> Option<&SqlError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<SqlError>() {
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

fn describe(root: &DataFusionError) -> (Kind, String) {
    let kind = match root {
        DataFusionError::ResourcesExhausted(_) => Kind::Limit,
        DataFusionError::SQL(inner, _) if matches!(**inner, ParserError::RecursionLimitExceeded) => {
            Kind::Limit
        }
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => Kind::Internal,
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => {
            Kind::Unavailable
        }
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

/// The place behind the last character that says something.
fn end_of(text: &str) -> Place {
    let text = text.trim_end();
    let line = text.rsplit('\n').next().unwrap_or_default();
    Place { line: text.matches('\n').count() as u64 + 1, column: line.chars().count() as u64 + 1, width: 1 }
}

/// The parser writes places into its text: `... at Line: 1, Column: 8`. Gives where that begins, and the place.
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

/// For errors that carry no place: the first thing that the message quotes and the statement contains.
fn named_place(message: &str, text: &str) -> Option<Place> {
    quoted(message).find_map(|name| {
        let parts = std::iter::once(name).chain(name.rsplit('.').next());
        parts.filter(|part| !part.is_empty()).find_map(|part| find_word(text, part))
    })
}

/// What stands in quotes, whichever quotes; then the word behind `named`, which the engine does not quote.
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

/// The line of the statement and carets below the place; a long line is cut around it.
fn snippet(line: &str, place: Place) -> String {
    let column = usize::try_from(place.column - 1).unwrap_or(usize::MAX);
    let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = column.min(chars.len());
    let from = if chars.len() <= SNIPPET_CHARS { 0 } else { column.saturating_sub(SNIPPET_CHARS / 2) };
    let to = chars.len().min(from + SNIPPET_CHARS);
    let width = usize::try_from(place.width).unwrap_or(usize::MAX).min(to.saturating_sub(column)).max(1);
    let mut shown = String::from("  ");
    shown.extend(&chars[from..to]);
    let _ = write!(shown, "\n  {}{}", " ".repeat(column - from), "^".repeat(width));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_text_shows_the_place() {
        let error = SqlError::at(
            Kind::Invalid,
            "no column foo",
            "select 1,\n  foo\nfrom t",
            Place { line: 2, column: 3, width: 3 },
        );
        assert_eq!(error.to_string(), "no column foo (line 2, column 3)\n    foo\n    ^^^");
        let long = format!("select {} , foo", "x".repeat(500));
        let place = find_word(&long, "foo").unwrap();
        let shown = SqlError::at(Kind::Invalid, "no", &long, place).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].len() <= SNIPPET_CHARS + 2 && lines[1].ends_with("foo"), "{shown}");
        assert!(lines[2].ends_with("^^^") && lines[2].len() == lines[1].len(), "{shown}");
        // A place beyond the line (the end of the text) is shown behind its last character.
        let end = SqlError::at(Kind::Invalid, "eof", "select", Place { line: 1, column: 7, width: 1 });
        assert!(end.to_string().ends_with("\n        ^"), "{end}");
    }
}
