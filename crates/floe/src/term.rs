//! What a person sees: colour only on a terminal, errors with their causes.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Prints the error with its causes on standard error, and gives the exit code of a failure.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut text = format!("{} {error}", paint_stderr("error:", "1;31"));
    for cause in error.chain().skip(1) {
        text.push_str(&format!("\n  because: {cause}"));
    }
    say_stderr(&text);
    ExitCode::FAILURE
}

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputError(#[from] std::io::Error);

/// Whether a command failed because its output was closed: `floe sql … | head` ends quietly.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let output = error.downcast_ref::<OutputError>();
    output.is_some_and(|OutputError(error)| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints one line on standard output.
///
/// # Errors
/// As [`write_bytes`].
pub(crate) fn say(line: &str) -> Result<(), OutputError> {
    write_bytes(format!("{line}\n").as_bytes())
}

/// Writes to standard output.
///
/// # Errors
/// A closed pipe, a full disk.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}

/// Prints one line on standard error.
pub(crate) fn say_stderr(line: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The text in an ANSI style on a terminal, plain elsewhere and under `NO_COLOR`.
pub(crate) fn paint(text: &str, style: &str) -> String {
    paint_for(std::io::stdout().is_terminal(), text, style)
}

fn paint_stderr(text: &str, style: &str) -> String {
    paint_for(std::io::stderr().is_terminal(), text, style)
}

/// Whether a stream has colour: a terminal, unless `NO_COLOR` is set.
pub(crate) fn is_coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none()
}

fn paint_for(terminal: bool, text: &str, style: &str) -> String {
    if is_coloured(terminal) { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A number of things: `1 row`, `2 rows`. The plural of the thing ends in s.
pub(crate) fn things<N: Copy + Display + PartialEq + From<u8>>(count: N, thing: &str) -> String {
    let end = if count == N::from(1) { "" } else { "s" };
    format!("{count} {thing}{end}")
}

/// Rows in aligned columns under a header, two spaces apart; numbers are right-aligned.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|c| {
            rows.iter().map(|r| r[c].chars().count()).chain([header[c].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..header.len())
        .map(|c| !rows.is_empty() && rows.iter().all(|r| r[c].parse::<f64>().is_ok()))
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (c, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            let (before, after) = if numeric[c] { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(&format!("{}{before}{cell}{after}", if c == 0 { "" } else { "  " }));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{columns, things};

    #[test]
    fn one_thing_is_not_plural() {
        assert_eq!([0, 1, 2].map(|count| things(count, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn columns_align_words_left_and_numbers_right() {
        let rows = vec![vec!["a".to_owned(), "5".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(columns(&["name", "n"], &rows), "name     n\na        5\nlong  1000");
    }
}
