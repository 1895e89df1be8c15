//! `floe serve`: a broker until it is asked to stop.

use anyhow::{Context, Result, bail};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::cli::ServeArgs;
use crate::server::Server;
use crate::settings::{Checked, LogFilter, LogFormat, Typed};
use crate::term::say;

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    let file = args.config.as_deref().map(Typed::read).transpose()?.unwrap_or_default();
    let checked = Checked::new(&args.settings.over(file))?;
    if args.print_config {
        return Ok(say(checked.to_toml()?.trim_end())?);
    }
    let config = checked.config();
    log_to_stderr(&config.log, config.log_format)?;
    let server = Server::start(config).await?;
    // Scripts wait for this line; its words are part of the interface.
    if let Err(error) = say(&format!("floe is ready kafka={} http={}", server.kafka, server.http)) {
        warn!(%error, "the line that says so was not written, the broker serves");
    }
    let newer = tokio::select! {
        biased;
        stopped = stop_signal() => {
            stopped?;
            None
        }
        newer = server.fenced() => Some(newer),
    };
    info!("stopping: no new connections, open uploads are finished");
    stop(server).await?;
    match newer {
        None => Ok(()),
        Some(newer) => bail!(
            "writer {newer} has started on this store with a copy of this broker's data directory: start only one of \
             the two again"
        ),
    }
}

/// Stops the broker in order. A second signal ends the process without waiting for that.
pub(crate) async fn stop(server: Server) -> Result<()> {
    tokio::select! {
        biased;
        () = server.stop() => {
            info!("stopped");
            Ok(())
        }
        again = stop_signal() => {
            again?;
            bail!("stopped before open requests and uploads were finished; what was acknowledged is kept")
        }
    }
}

/// Sends log lines to standard error.
pub(crate) fn log_to_stderr(filter: &LogFilter, format: LogFormat) -> Result<()> {
    let LogFilter(filter) = filter;
    let filter = EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is not a log filter"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// Ends with Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        outcome = tokio::signal::ctrl_c() => outcome.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
