//! Why a statement has no result, and where in its text.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::limits::SNIPPET_CHARS;

/// A place in a statement, in characters, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Characters that are meant; at least 1.
    pub width: u64,
}

/// What kind of error; the fronts turn it into their protocol's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryError {
    /// What kind of error.
    pub kind: Kind,
    /// What is wrong and what to do, in one sentence, without the place.
    pub message: String,
    /// Where, if it is at a place.
    pub place: Option<Place>,
    /// The line of the statement at that place.
    line: Option<String>,
}

impl std::error::Error for QueryError {}

impl fmt::Display for QueryError {
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

impl QueryError {
    /// An error without a place.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> QueryError {
        QueryError { kind, message: message.into(), place: None, line: None }
    }

    /// An error at a place of `text`.
    #[must_use]
    pub fn at(kind: Kind, message: impl Into<String>, text: &str, place: Place) -> QueryError {
        QueryError::new(kind, message).placed(text, Some(place))
    }

    /// The same error at a place of `text`, if there is one.
    #[must_use]
    pub fn placed(mut self, text: &str, place: Option<Place>) -> QueryError {
        let Some(place) = place else { return self };
        let index = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
        self.line = text.lines().nth(index).map(str::to_owned);
        self.place = Some(Place { width: place.width.max(1), ..place });
        self
    }
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
    fn the_text_shows_the_place() {
        let error = QueryError::at(
            Kind::Invalid,
            "no column foo",
            "select 1,\n  foo\nfrom t",
            Place { line: 2, column: 3, width: 3 },
        );
        assert_eq!(error.to_string(), "no column foo (line 2, column 3)\n    foo\n    ^^^");
        let long = format!("select {} , foo", "x".repeat(500));
        let place = Place { line: 1, column: long.chars().count() as u64 - 2, width: 3 };
        let shown = QueryError::at(Kind::Invalid, "no", &long, place).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].len() <= SNIPPET_CHARS + 2 && lines[1].ends_with("foo"), "{shown}");
        assert!(lines[2].ends_with("^^^") && lines[2].len() == lines[1].len(), "{shown}");
        // A place beyond the line (the end of the text) is shown behind its last character.
        let end = QueryError::at(Kind::Invalid, "eof", "select", Place { line: 1, column: 7, width: 1 });
        assert!(end.to_string().ends_with("\n        ^"), "{end}");
    }
}
