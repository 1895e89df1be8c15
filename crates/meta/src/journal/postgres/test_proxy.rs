//! What a network does between a client and its server: it loses answers, calls and everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use floe_env::{Env, Task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// All pass.
    Pass,
    /// A call passes; at its first answer the connection ends, and the client gets none of it.
    LoseAnswers,
    /// At the next call the connection ends, and the server gets none of it.
    LoseCalls,
    /// Calls pass, answers vanish, and nothing ends.
    Silence,
}

impl Mode {
    fn of(number: u8) -> Mode {
        [Mode::Pass, Mode::LoseAnswers, Mode::LoseCalls, Mode::Silence][usize::from(number)]
    }
}

/// A network that ends with its owner.
pub(super) struct Proxy {
    pub(super) port: u16,
    state: Arc<State>,
    task: Task<()>,
    env: Env,
}

#[derive(Default)]
struct State {
    mode: AtomicU8,
    lost: AtomicU64,
}

impl Proxy {
    /// A network in front of the server on this port.
    pub(super) async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (state, env) = (Arc::<State>::default(), Env::real().scope());
        let (shared, here) = (Arc::clone(&state), env.clone());
        let task = env.spawn("proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                here.spawn("proxied", async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        pass(client, server, &shared).await;
                    }
                });
            }
        });
        Proxy { port: own, state, task, env }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.state.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// How often something was lost.
    pub(super) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.env.abort_all();
    }
}

/// Both ways, until one of them ends.
async fn pass(client: TcpStream, server: TcpStream, state: &State) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        biased;
        _ = one_way(from_client, to_server, state, Mode::LoseCalls) => {}
        _ = one_way(from_server, to_client, state, Mode::LoseAnswers) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    ends_at: Mode,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mode = Mode::of(state.mode.load(Ordering::SeqCst));
        if mode == ends_at {
            state.lost.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        match mode == Mode::Silence && ends_at == Mode::LoseAnswers {
            true => drop(state.lost.fetch_add(1, Ordering::SeqCst)),
            false => to.write_all(&buffer[..count]).await?,
        }
    }
}
