//! Parses a text into the one statement that may run. It must be read-only.

use datafusion::common::plan_datafusion_err;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;

use crate::{error, guard};
use floe_engine::{Language, correct};
use floe_query::{Kind, Place, QueryError};

/// Parses one statement and refuses it unless it is read-only.
///
/// # Errors
/// Those of the parser, with their place. [`Kind::Limit`] for a deep or huge statement, before it is parsed.
pub(crate) fn parse(state: &SessionState, text: &str) -> Result<Statement, QueryError> {
    guard::check(text)?;
    if let Some(second) = guard::second_statement(text)? {
        let message = "there is a second statement; send one at a time";
        return Err(QueryError::at(Kind::Invalid, message, text, second));
    }
    if text.trim().trim_end_matches(';').is_empty() {
        return Err(QueryError::new(Kind::Invalid, "the statement is empty"));
    }
    let mut statement = parsed(state, text).map_err(|error| match guard::past_moment(text) {
        Some(place) => QueryError::at(Kind::Invalid, correct::NO_PAST, text, place),
        None => error::of(&error, text),
    })?;
    if !reads(&statement) {
        return Err(not_reading(&statement, text));
    }
    correct::adapt(&mut statement).map_err(|refused| error::refused(&refused, text))?;
    Ok(statement)
}

fn parsed(state: &SessionState, text: &str) -> Result<Statement, DataFusionError> {
    let language = Language::default();
    DFParserBuilder::new(text)
        .with_dialect(&language)
        .with_recursion_limit(state.config_options().sql_parser.recursion_limit.get())
        .build()?
        .parse_statements()?
        .pop_front()
        .ok_or_else(|| plan_datafusion_err!("the statement is empty"))
}

/// Whether a statement is read-only. This is an allow-list, so that a new kind of statement is refused.
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

/// What to do instead of a statement that only reads, and that the engine does not have.
fn instead(statement: &Statement) -> Option<&'static str> {
    let Statement::Statement(statement) = statement else { return None };
    match **statement {
        Sql::ShowDatabases { .. } | Sql::ShowCatalogs { .. } | Sql::ShowSchemas { .. } => Some(
            "there is one database, floe, with two schemas: default has the tables of topics, and system has the history \
             of commits, system.commits; SHOW TABLES lists them",
        ),
        Sql::ShowViews { .. } | Sql::ShowObjects { .. } => {
            Some("there are only tables; SHOW TABLES lists them")
        }
        Sql::ShowCreate { .. } => Some(
            "no statement made the table, but a topic with the setting floe.table; DESCRIBE lists its columns",
        ),
        _ => None,
    }
}

fn not_reading(statement: &Statement, text: &str) -> QueryError {
    let message = instead(statement).unwrap_or(
        "only SELECT, EXPLAIN, SHOW and DESCRIBE are possible: rows are written through the Kafka protocol, and a \
         topic becomes a table by its setting floe.table",
    );
    let start = text.find(|c: char| !c.is_whitespace()).unwrap_or(0);
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let width = text[start..].find(|c: char| !c.is_alphanumeric()).unwrap_or(1);
    let place = Place {
        line: before.matches('\n').count() as u64 + 1,
        column: before[line_start..].chars().count() as u64 + 1,
        width: width as u64,
    };
    QueryError::at(Kind::Invalid, message, text, place)
}
