//! `floe sql`: one statement, or a prompt.

use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, bail};
use floe_env::Env;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::cli::{ResultFormat, SqlArgs};
use crate::client::HttpClient;
use crate::term::{OutputError, paint, say, say_stderr, write_bytes};

/// The broker refuses longer statements, so no more of standard input is read.
const STATEMENT_BYTES_MAX: u64 = floe_sql::limits::TEXT_BYTES_MAX as u64;

/// Runs the command.
pub(crate) async fn run(args: SqlArgs) -> Result<()> {
    let client = HttpClient::new(&args.server)?;
    let format = args.format.unwrap_or(if args.json { ResultFormat::Json } else { ResultFormat::Table });
    if let Some(statement) = &args.statement {
        return execute(&client, statement, format).await;
    }
    if std::io::stdin().is_terminal() {
        return prompt(&client, format).await;
    }
    let mut statement = String::new();
    std::io::stdin().take(STATEMENT_BYTES_MAX + 1).read_to_string(&mut statement)?;
    if statement.len() as u64 > STATEMENT_BYTES_MAX {
        bail!("the statement is longer than {STATEMENT_BYTES_MAX} bytes");
    }
    execute(&client, &statement, format).await
}

async fn execute(client: &HttpClient, statement: &str, format: ResultFormat) -> Result<()> {
    let accept = match format {
        ResultFormat::Table => return print_table(client, statement).await,
        ResultFormat::Csv => "text/csv",
        ResultFormat::Json => "application/x-ndjson",
    };
    let print = |piece: &[u8]| Ok(write_bytes(piece)?);
    client.stream(statement, accept, print).await
}

async fn print_table(client: &HttpClient, statement: &str) -> Result<()> {
    let started = Env::real().monotonic();
    let rows = client.query(statement).await?;
    let text = floe_sql::text_table(&rows.schema, &rows.batches, started.elapsed())?;
    Ok(say(text.trim_end_matches('\n'))?)
}

/// Reads statements until `\q`; a statement ends with `;` or an empty line. Ctrl-C drops what was typed, or ends the
/// statement that runs.
async fn prompt(client: &HttpClient, format: ResultFormat) -> Result<()> {
    let mut editor = DefaultEditor::new().context("cannot open the prompt")?;
    say(&paint(
        "SQL on Floe. A statement ends with ; or an empty line. SHOW TABLES lists the tables, \\q ends.",
        "2",
    ))?;
    let mut statement = String::new();
    loop {
        let mark = if statement.is_empty() { "floe> " } else { "  ... " };
        let line = tokio::task::block_in_place(|| editor.readline(mark));
        match line {
            Ok(line) if line.trim() == "\\q" => return Ok(()),
            Ok(line) if statement.is_empty() && matches!(line.trim(), "exit" | "quit") => return Ok(()),
            Ok(line) => {
                let ends = line.trim().is_empty() || line.trim_end().ends_with(';');
                statement.push_str(&line);
                statement.push('\n');
                if !ends {
                    continue;
                }
            }
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read the prompt"),
        }
        let text = std::mem::take(&mut statement);
        let text = text.trim().trim_end_matches(';');
        if text.is_empty() {
            continue;
        }
        // The history is a convenience; without it the prompt still works.
        let _ = editor.add_history_entry(format!("{text};"));
        let outcome = tokio::select! {
            biased;
            // The broker ends a statement whose reader has left.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for Ctrl-C").and_then(|()| bail!("interrupted"))
            }
            outcome = execute(client, text, format) => outcome,
        };
        if let Err(error) = outcome {
            if error.is::<OutputError>() {
                return Err(error);
            }
            say_stderr(&format!("{} {error:#}", paint("error:", "1;31")));
        }
    }
}
