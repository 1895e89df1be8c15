//! `floe serve`: a broker until it is asked to stop.

use anyhow::{Context, Result};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::cli::ServeArgs;
use crate::config::{Config, LogFormat, RawConfig};
use crate::server::Server;
use crate::term::say;

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    let file = args.config.as_deref().map(RawConfig::read).transpose()?.unwrap_or_default();
    let raw = args.settings.over(file);
    if args.print_config {
        say(toml::to_string(&raw).context("cannot print the settings")?.trim_end());
        return Config::check(raw).map(drop);
    }
    let config = Config::check(raw)?;
    log_to_stderr(&config.log, config.log_format)?;
    let server = Server::start(config).await?;
    // Scripts wait for this line; its words are part of the interface.
    say(&format!("floe is ready kafka={} http={}", server.kafka, server.http));
    stop_signal().await?;
    info!("stopping: no new connections, open uploads are finished");
    server.stop().await;
    info!("stopped");
    Ok(())
}

/// Sends log lines to standard error.
pub(crate) fn log_to_stderr(filter: &str, format: LogFormat) -> Result<()> {
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
