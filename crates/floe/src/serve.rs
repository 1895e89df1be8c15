//! `floe serve`: a broker until it is asked to stop.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::cli::ServeArgs;
use crate::server::Server;
use crate::settings::{Checked, LogFilter, LogFormat, Typed, misspelt};
use crate::term::{is_coloured, say};

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    floe_alloc::keep_freed();
    let file = args.config.as_deref().map(Typed::read).transpose()?.unwrap_or_default();
    let checked = Checked::new(&args.settings.over(file))?;
    if args.print_config {
        return Ok(say(checked.to_toml()?.trim_end())?);
    }
    let config = checked.config();
    log_to_stderr(&config.log, config.log_format)?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, nearest) in misspelt(variables) {
        warn!("the environment variable {name} is no setting and has no effect; {nearest} is one");
    }
    let mut asked = StopSignal::listen()?;
    let server = tokio::select! {
        biased;
        started = Server::start(config) => started?,
        // Whatever the start was doing, the next start finds it as after a crash.
        () = asked.received() => bail!("asked to stop before the broker was ready"),
    };
    // Scripts wait for this line; its words are part of the interface.
    if let Err(error) = say(&format!("floe is ready kafka={} http={}", server.kafka, server.http)) {
        warn!(%error, "the line that says so was not written, the broker serves");
    }
    let newer = tokio::select! {
        biased;
        () = asked.received() => None,
        newer = server.fenced() => Some(newer),
    };
    info!("stopping: no new connections, open uploads are finished");
    let is_shared = server.journal().is_shared();
    stop(server, &mut asked).await?;
    match newer {
        None => Ok(()),
        Some(newer) if is_shared => Err(Replaced::Shared(newer).into()),
        Some(newer) => Err(Replaced::Copied(newer).into()),
    }
}

/// Why a broker ends that nobody asked to. Its process has the exit status [`REPLACED`](crate::REPLACED).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Replaced {
    #[error(
        "writer {0} has started on this store and its journal, and one broker at a time serves them. It has everything \
         that this broker acknowledged; clients find it at its own address. Start this one again only to take its \
         place back"
    )]
    Shared(u64),
    #[error(
        "writer {0} has started on this store with a copy of this broker's data directory: start only one of the two \
         again"
    )]
    Copied(u64),
}

/// Stops the broker in order. A second signal ends the process without waiting for that.
pub(crate) async fn stop(server: Server, asked: &mut StopSignal) -> Result<()> {
    tokio::select! {
        biased;
        () = server.stop() => {
            info!("stopped");
            Ok(())
        }
        () = asked.received() => {
            bail!("stopped before open requests and uploads were finished; what was acknowledged is kept")
        }
    }
}

/// Sends log lines to standard error.
pub(crate) fn log_to_stderr(filter: &LogFilter, format: LogFormat) -> Result<()> {
    let LogFilter(filter) = filter;
    let filter = EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is not a log filter"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(is_coloured(std::io::IsTerminal::is_terminal(&std::io::stderr())));
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// Ctrl-C or SIGTERM. A signal that comes while nobody waits is not lost.
pub(crate) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    /// Listens from now on: the signals no longer end the process at once.
    pub(crate) fn listen() -> Result<StopSignal> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(StopSignal {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Returns when one of the signals has come since the last time.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
