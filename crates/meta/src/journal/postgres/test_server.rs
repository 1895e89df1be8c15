//! A PostgreSQL server for tests: in a directory of its own, on a free port, as a user that is not root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use floe_env::lock;
use tempfile::TempDir;

/// Where the programs of the server are: the environment says so.
const BIN: &str = "FLOE_POSTGRES_BIN";

/// How often the server is asked whether it takes connections, 50 ms apart.
const LOOKS: u32 = 600;

/// A server. Dropping it kills it and removes its files.
pub(super) struct TestServer {
    bin: PathBuf,
    directory: TempDir,
    /// Who runs it, if that is somebody else.
    user: Option<(u32, u32)>,
    pub(super) port: u16,
    process: Mutex<Option<Child>>,
}

impl TestServer {
    /// A server that runs. Without its programs there is none, and the test says why it does nothing.
    pub(super) async fn start() -> Option<TestServer> {
        let server = TestServer::bare()?;
        server.make("initdb", &["-D", "data", "-U", "floe", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        server.run(&[]).await;
        Some(server)
    }

    /// A server without data.
    pub(super) fn bare() -> Option<TestServer> {
        let Some(bin) = std::env::var_os(BIN) else {
            println!(
                "left out: {BIN} does not say where the programs of PostgreSQL are (interop/postgres sets it)"
            );
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let user = is_root().then(user_of_postgres);
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(TestServer { bin: bin.into(), directory, user, port, process: Mutex::default() })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).current_dir(self.directory.path()).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Runs a program to its end, in the directory of the server.
    pub(super) fn make(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts the server on its data, with these settings, and waits until it takes connections.
    pub(super) async fn run(&self, settings: &[&str]) {
        let (port, log) = (self.port.to_string(), self.directory.path().join("log"));
        let mut command = self.command("postgres", &["-D", "data", "-p", &port, "-k", "", "-h", "127.0.0.1"]);
        for setting in
            ["shared_buffers=32MB", "max_connections=80", "log_statement=none"].iter().chain(settings)
        {
            command.args(["-c", setting]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *lock(&self.process) = Some(child);
        for _ in 0..LOOKS {
            let asked = ["-h", "127.0.0.1", "-p", &port, "-q", "-d", "postgres", "-U", "floe"];
            if self.command("pg_isready", &asked).status().unwrap().success() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not start: {}", self.log());
    }

    /// What the server wrote.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Stops it in order.
    pub(super) fn stop(&self) {
        let Some(mut child) = lock(&self.process).take() else { return };
        signal("-INT", &[child.id()]);
        child.wait().unwrap();
    }

    /// Kills it with every process that it has started, as the death of a machine would, and waits until they are gone.
    pub(super) async fn kill(&self) {
        let Some(child) = lock(&self.process).take() else { return };
        let children = kill_now(child);
        while children.iter().any(|child| is_alive(*child)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The answer of one statement.
    pub(super) fn sql(&self, statement: &str) -> String {
        let port = self.port.to_string();
        let there = ["-h", "127.0.0.1", "-p", &port, "-U", "floe", "-d", "postgres"];
        let how = ["-X", "-v", "ON_ERROR_STOP=1", "-Atqc", statement];
        self.make("psql", &[&there[..], &how[..]].concat())
    }

    /// The address of the server for clients that call themselves `name`.
    pub(super) fn address(&self, name: &str) -> String {
        address(self.port, name)
    }

    /// Makes a key and a certificate of its own for the server. Returns the file of roots that trusts it.
    pub(super) fn certify(&self) -> PathBuf {
        let (directory, data) = (self.directory.path(), self.directory.path().join("data"));
        let asked = "[req]\ndistinguished_name = name\nx509_extensions = more\nprompt = no\n[name]\nCN = 127.0.0.1\n\
                     [more]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n";
        fs::write(directory.join("asked"), asked).unwrap();
        let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -config asked -keyout data/server.key \
                         -out data/server.crt";
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(directory);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        data.join("server.crt")
    }

    /// Copies the data of the server, which must not run, to or from another directory beside it.
    pub(super) fn copy(&self, from: &str, to: &str) {
        let path = self.directory.path();
        let _ = fs::remove_dir_all(path.join(to));
        copy(&path.join(from), &path.join(to), self.user);
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(child) = lock(&self.process).take() {
            kill_now(child);
        }
    }
}

/// The address of the server on a port.
pub(super) fn address(port: u16, name: &str) -> String {
    format!("postgres://floe@127.0.0.1:{port}/postgres?application_name={name}")
}

/// Kills a server, and returns the processes that it had started.
fn kill_now(mut child: Child) -> Vec<u32> {
    let children = children_of(child.id());
    child.kill().unwrap();
    signal("-KILL", &children);
    child.wait().unwrap();
    children
}

/// They may be gone already.
fn signal(signal: &str, processes: &[u32]) {
    if !processes.is_empty() {
        let processes = processes.iter().map(u32::to_string);
        let _ = Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status();
    }
}

/// The state and the parent of a process.
fn process(id: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut rest = text.rsplit_once(')')?.1.split_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

fn is_alive(id: u32) -> bool {
    process(id).is_some_and(|(state, _)| state != 'Z')
}

fn children_of(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter(|id| process(*id).is_some_and(|(_, of)| of == parent)).collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The server refuses to run as root; its package brings a user.
fn user_of_postgres() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, owner);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            own(&target, owner);
        }
    }
    own(to, owner);
}

fn own(path: &Path, owner: Option<(u32, u32)>) {
    if let Some((user, group)) = owner {
        chown(path, Some(user), Some(group)).unwrap();
    }
}
