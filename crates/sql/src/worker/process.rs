//! A worker as the broker sees it: a process that starts, takes memory, says lines on its standard error, and ends.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use floe_env::{Env, LogLines, lock};

use super::statm::Statm;
use crate::limits::{WORKER_LAST_LINES, WORKER_LINE_BYTES, WORKER_LINES_LOGGED, WORKER_LINES_PERIOD};

/// How to start a worker: a program and arguments with which it calls [`super::work`].
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment. Nothing is inherited: secrets of the broker are none of a statement's business.
    pub environment: Vec<(String, String)>,
    /// Whether statements may tell a worker to misbehave, for tests.
    pub faults: bool,
}

/// A worker's process.
pub(super) struct Process {
    pid: u32,
    child: Mutex<Child>,
    ended: watch::Receiver<Option<Ending>>,
    statm: Statm,
    /// Private bytes when it became ready.
    base: AtomicU64,
    killed: AtomicBool,
    /// Whether somebody waits for its end.
    is_waited_for: AtomicBool,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// None if the system does not tell.
    status: Option<ExitStatus>,
    /// The last lines that it said.
    lines: Vec<String>,
}

impl Ending {
    /// Whether the process ended because it got no memory: its allocator said so, or the system ended it.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let refused = |line: &String| {
            let by_allocator = line.starts_with("memory allocation of ") && line.contains(" failed");
            by_allocator || line.contains(TOO_MUCH_MEMORY)
        };
        self.lines.iter().any(refused) || self.status.and_then(|status| status.signal()) == Some(SIGKILL)
    }
}

const SIGKILL: i32 = 9;

/// The reason of a worker that has found by itself that it has too much.
pub(super) const TOO_MUCH_MEMORY: &str = "the statement has too much memory";

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => write!(f, "no status")?,
        }
        self.lines.iter().try_for_each(|line| write!(f, "; {line}"))
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.pid)
    }
}

impl Process {
    /// Starts a worker. Returns it with the broker's end of the socket that is its standard input. Of the broker's
    /// files it has none: the standard library opens all of them to close on exec.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn start(env: &Env, program: &Program) -> io::Result<(Arc<Process>, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.path);
        command
            .arg0("floe")
            .args(&program.arguments)
            .env_clear()
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A worker prints nothing that anybody would read.
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Signals of a terminal are the broker's. It decides when workers end.
            .process_group(0);
        let (tell, told) = mpsc::sync_channel(1);
        let of_env = env.clone();
        // The thread that starts a process is its parent, and the process ends with its parent. So this one lives as
        // long as the process.
        env.thread("sql worker", move || {
            let child = command.spawn();
            // It has the worker's end of the socket, which must be the worker's alone.
            drop(command);
            let child = match child {
                Ok(child) => child,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let (process, said, ended) = Process::of(child);
            let _ = tell.send(Ok(process.clone()));
            let lines = said.map_or_else(Vec::new, |said| log_lines(&of_env, process.pid, said));
            // Standard error is closed, so the process has ended or is about to.
            process.is_waited_for.store(true, SeqCst);
            let status = lock(&process.child).wait().ok();
            ended.send_replace(Some(Ending { status, lines }));
        })?;
        let process = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok((process, ours))
    }

    fn of(mut child: Child) -> (Arc<Process>, Option<ChildStderr>, watch::Sender<Option<Ending>>) {
        let (tell, ended) = watch::channel(None);
        let (pid, said) = (child.id(), child.stderr.take());
        let process = Process {
            pid,
            child: Mutex::new(child),
            ended,
            statm: Statm::of(pid),
            base: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            is_waited_for: AtomicBool::new(false),
        };
        (Arc::new(process), said, tell)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the process now, whatever it does.
    pub(super) fn kill(&self) {
        self.killed.store(true, Relaxed);
        // Whoever waits for the child's end has it until then, and there is nothing left to kill. Whoever sends it a
        // signal has it for a moment.
        while !self.is_waited_for.load(SeqCst) {
            if let Ok(mut child) = self.child.try_lock() {
                // It may have ended by itself.
                let _ = child.kill();
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Stops the process in the middle of what it does. Returns whether it does so.
    pub(super) fn stand_still(&self) -> bool {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) -> bool {
        // Whoever has the child waits for its end. Until then its number is no other process's.
        let Ok(child) = self.child.try_lock() else { return false };
        kill(Pid::from_raw(child.id().cast_signed()), signal).is_ok()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Whether it can run statements.
    pub(super) fn is_alive(&self) -> bool {
        !self.killed.load(Relaxed) && !self.has_ended()
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(&self) -> Ending {
        let mut ended = self.ended.clone();
        let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
        ending.unwrap_or(Ending { status: None, lines: Vec::new() })
    }

    /// Remembers what the process has before its first statement.
    pub(super) fn ready(&self) {
        self.base.store(self.statm.private_bytes().unwrap_or(0), Relaxed);
    }

    /// Bytes beyond those that it had when it became ready.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.statm.private_bytes().unwrap_or(0).saturating_sub(self.base.load(Relaxed))
    }
}

/// Writes what a worker says to the log, and returns its last lines.
fn log_lines(env: &Env, pid: u32, mut from: ChildStderr) -> Vec<String> {
    let limit = LogLines::new(WORKER_LINES_LOGGED, WORKER_LINES_PERIOD);
    let mut last: Vec<String> = Vec::new();
    each_line(&mut from, |line| {
        if let Some(left_out) = limit.next(env.monotonic()) {
            tracing::warn!(worker = pid, left_out, "a worker says: {line}");
        }
        if last.len() == WORKER_LAST_LINES {
            last.remove(0);
        }
        last.push(line.to_owned());
    });
    last
}

/// Reads lines until the end. Longer ones are cut.
fn each_line(from: &mut impl Read, mut take: impl FnMut(&str)) {
    let (mut buffer, mut line) = ([0; 1 << 10], Vec::new());
    let mut end = |line: &mut Vec<u8>| {
        if !line.is_empty() {
            take(&String::from_utf8_lossy(line));
        }
        line.clear();
    };
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break end(&mut line),
            Ok(length) => {
                for byte in &buffer[..length] {
                    match byte {
                        b'\n' => end(&mut line),
                        _ if line.len() < WORKER_LINE_BYTES => line.push(*byte),
                        _ => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(process: &Process) -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
        stat.rsplit(')').next()?.split_whitespace().next().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_process_stands_still_and_goes_on_and_ends() {
        let program = Program {
            path: "/bin/sleep".into(),
            arguments: vec!["600".to_owned()],
            environment: Vec::new(),
            faults: false,
        };
        let (process, _socket) = Process::start(&Env::real(), &program).unwrap();
        for expected in ["T", "S", "T"] {
            match expected {
                "T" => assert!(process.stand_still()),
                _ => process.go_on(),
            }
            while state(&process).as_deref() != Some(expected) {
                std::thread::yield_now();
            }
        }
        process.kill();
        process.ended().await;
        assert!(!process.stand_still() && !process.is_alive());
        let nothing = Program { path: "/nowhere/at/all".into(), ..program };
        assert_eq!(Process::start(&Env::real(), &nothing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn lines_are_cut_and_the_last_one_needs_no_end() {
        let text = format!("one\n\n{}\nlast", "x".repeat(WORKER_LINE_BYTES + 10));
        let mut lines = Vec::new();
        each_line(&mut text.as_bytes(), |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", &"x".repeat(WORKER_LINE_BYTES), "last"]);
    }
}
