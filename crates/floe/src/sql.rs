//! `floe sql`: one statement, or a prompt.

use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, bail};
use floe_env::Env;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::cli::{Format, SqlArgs};
use crate::client::Client;
use crate::term::{OutputError, paint, say, say_stderr, write_bytes};

/// The broker takes no longer statement, so more of standard input is not read.
const STATEMENT_BYTES_MAX: u64 = 256 << 10;

/// Runs the command.
pub(crate) async fn run(args: SqlArgs) -> Result<()> {
    let client = Client::new(&args.server)?;
    let format = args.format.unwrap_or(if args.json { Format::Json } else { Format::Table });
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

async fn execute(client: &Client, statement: &str, format: Format) -> Result<()> {
    let accept = match format {
        Format::Table => return print_table(client, statement).await,
        Format::Csv => "text/csv",
        Format::Json => "application/x-ndjson",
    };
    let print = |piece: &[u8]| Ok(write_bytes(piece)?);
    client.stream(statement, accept, print).await
}

async fn print_table(client: &Client, statement: &str) -> Result<()> {
    let started = Env::real().monotonic();
    let rows = client.query(statement).await?;
    let text = floe_sql::format::table(&rows.schema, &rows.batches, started.elapsed())?;
    Ok(say(text.trim_end_matches('\n'))?)
}

/// Reads statements until `\q`; a statement ends with `;` or an empty line.
async fn prompt(client: &Client, format: Format) -> Result<()> {
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
            Ok(line) if statement.is_empty() && matches!(line.trim(), "\\q" | "exit" | "quit") => {
                return Ok(());
            }
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
        if let Err(error) = execute(client, text, format).await {
            if error.is::<OutputError>() {
                return Err(error);
            }
            say_stderr(&format!("{} {error:#}", paint("error:", "1;31")));
        }
    }
}
