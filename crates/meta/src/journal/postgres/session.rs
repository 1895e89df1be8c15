//! One connection to the primary: opened, set and checked; and the task that drives it.

use std::future::poll_fn;
use std::sync::Arc;

use floe_env::{Env, Task};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use crate::limits::{
    POSTGRES_COMMIT_STATEMENT_TIMEOUT, POSTGRES_CONNECT_TIMEOUT, POSTGRES_IDLE_IN_TRANSACTION,
    POSTGRES_KEEPER_STATEMENT_TIMEOUT, POSTGRES_LOCK_TIMEOUT, POSTGRES_NETWORK_TIMEOUT,
    POSTGRES_READ_STATEMENT_TIMEOUT,
};

use super::error::{PostgresOpenError, said};
use super::schema;
use super::server::Server;

/// What a connection is for. It decides how long its statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Commits, one after another.
    Commits,
    /// Reads, and the ear for notifications.
    Reads,
    /// Images, letting go of entries, vacuum.
    Keeper,
}

/// What hears the notifications of a connection.
pub(super) type Ear = Arc<dyn Fn(&str) + Send + Sync>;

/// A connection. Dropping it closes the socket at once, whatever is under way.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) driver: Task<()>,
}

impl Session {
    /// Connects to the one server that takes writes, and sets the session. `ear` hears its notifications.
    pub(super) async fn connect(
        env: &Env,
        server: &Server,
        role: Role,
        ear: Option<Ear>,
    ) -> Result<Session, PostgresOpenError> {
        let unreachable = |reason| PostgresOpenError::Unreachable { server: server.shown(), reason };
        let slow = || unreachable(format!("no answer within {} s", POSTGRES_CONNECT_TIMEOUT.as_secs()));
        // The socket belongs to the runtime that drives it.
        let (here, config, tls) = (env.clone(), server.config.clone(), server.tls.clone());
        let opening = async move {
            let (client, mut connection) = config.connect(tls).await?;
            let driver = here.spawn("postgres-connection", async move {
                while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                    match message {
                        Ok(AsyncMessage::Notification(heard)) => {
                            if let Some(ear) = &ear {
                                ear(heard.payload());
                            }
                        }
                        Ok(AsyncMessage::Notice(notice)) => tracing::info!(%notice, "PostgreSQL says"),
                        Ok(_) => {}
                        Err(error) => return tracing::debug!(error = said(&error), "PostgreSQL is gone"),
                    }
                }
            });
            Ok::<Session, tokio_postgres::Error>(Session { client, driver })
        };
        let opened = env.at_home("postgres-connect", timeout(POSTGRES_CONNECT_TIMEOUT, opening)).await;
        let opened: Result<Session, tokio_postgres::Error> =
            opened.map_err(|ended| unreachable(ended.to_string()))?.map_err(|_| slow())?;
        let session = opened.map_err(|error| unreachable(said(&error)))?;
        let set = async {
            session.client.batch_execute(&settings(role, &server.quoted())).await?;
            schema::check_server(&session.client, server).await
        };
        timeout(POSTGRES_CONNECT_TIMEOUT, set).await.map_err(|_| slow())??;
        metrics::counter!("floe_meta_postgres_connects_total").increment(1);
        Ok(session)
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The settings of a session.
///
/// - `search_path` has the journal's schema alone, so a table of that name elsewhere is never taken for ours.
/// - `synchronous_commit` is at least `on`, whatever the server, the database or the user have; `remote_apply` stays.
/// - Every transaction reads what others have committed: the race for the tail needs that.
/// - `client_connection_check_interval` ends a statement that waits for its turn when we are gone. Servers before 14 do
///   not know it.
/// - The server notices soon that we are gone without a word, and gives up the locks and the place in the queue of
///   notifications that a dead connection would hold.
/// - The plans are those of a large table, also while it is small.
fn settings(role: Role, schema: &str) -> String {
    let (statement, lock) = match role {
        Role::Commits => (POSTGRES_COMMIT_STATEMENT_TIMEOUT, POSTGRES_LOCK_TIMEOUT),
        Role::Reads => (POSTGRES_READ_STATEMENT_TIMEOUT, POSTGRES_LOCK_TIMEOUT),
        Role::Keeper => (POSTGRES_KEEPER_STATEMENT_TIMEOUT, POSTGRES_LOCK_TIMEOUT),
    };
    format!(
        "SET search_path TO {schema};
         SET statement_timeout TO {};
         SET lock_timeout TO {};
         SET idle_in_transaction_session_timeout TO {};
         SET tcp_user_timeout TO {};
         SET tcp_keepalives_idle TO {};
         SET default_transaction_isolation TO 'read committed';
         SET enable_seqscan TO off;
         SET jit TO off;
         SET plan_cache_mode TO force_generic_plan;
         SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') <> 'remote_apply';
         SELECT set_config('client_connection_check_interval', '1s', false)
             WHERE current_setting('server_version_num')::integer >= 140000",
        statement.as_millis(),
        lock.as_millis(),
        POSTGRES_IDLE_IN_TRANSACTION.as_millis(),
        POSTGRES_NETWORK_TIMEOUT.as_millis(),
        POSTGRES_NETWORK_TIMEOUT.as_secs() / 2,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_demands_the_sync_and_bounds_its_statements() {
        for role in [Role::Commits, Role::Reads, Role::Keeper] {
            let set = settings(role, "\"a \"\"b\"\"\"");
            assert!(set.contains("set_config('synchronous_commit', 'on', false)"));
            assert!(set.contains("SET search_path TO \"a \"\"b\"\"\";"));
            assert!(!set.contains("statement_timeout TO 0"));
        }
    }
}
