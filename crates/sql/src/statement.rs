//! From text to a statement that may run: one, and only one that reads.

use datafusion::config::Dialect;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;

use crate::error::{Kind, Place, SqlError};
use crate::guard;

/// Parses one statement and refuses what does not only read.
///
/// # Errors
/// The parser's, with their place; [`Kind::Limit`] before anything deep or huge is parsed.
pub(crate) fn parse(state: &SessionState, text: &str) -> Result<Statement, SqlError> {
    guard::check(text)?;
    if let Some(second) = guard::second_statement(text)? {
        let message = "there is a second statement; send one at a time";
        return Err(SqlError::at(Kind::Invalid, message, text, second));
    }
    if text.trim().trim_end_matches(';').is_empty() {
        return Err(SqlError::new(Kind::Invalid, "the statement is empty"));
    }
    let statement =
        state.sql_to_statement(text, &Dialect::Generic).map_err(|error| SqlError::of(&error, text))?;
    match reads(&statement) {
        true => Ok(statement),
        false => Err(not_reading(text)),
    }
}

/// Whether a statement only reads. A list of what is allowed, so that what is new is refused.
fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            Sql::Query(_)
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowVariable { .. }
                | Sql::ShowFunctions { .. }
                | Sql::ExplainTable { .. }
        ),
        Statement::Explain(explain) => reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn not_reading(text: &str) -> SqlError {
    let message = "only SELECT, EXPLAIN, SHOW and DESCRIBE are possible: rows are written through the Kafka \
                   protocol, and a topic becomes a table by its setting floe.table";
    let start = text.find(|c: char| !c.is_whitespace()).unwrap_or(0);
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let width = text[start..].find(|c: char| !c.is_alphanumeric()).unwrap_or(1);
    let place = Place {
        line: before.matches('\n').count() as u64 + 1,
        column: before[line_start..].chars().count() as u64 + 1,
        width: width as u64,
    };
    SqlError::at(Kind::Invalid, message, text, place)
}
