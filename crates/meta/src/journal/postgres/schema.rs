//! The tables of a journal in PostgreSQL: made once, and compared at every connection. The module's head draws them.

use tokio_postgres::Client;

use super::error::PostgresOpenError;
use super::server::Server;

/// The format of the tables. Raise it with every change that an earlier floe must not work on.
const FORMAT: i32 = 1;

/// The oldest major version of the server.
const SERVER_MIN: i32 = 13;

/// The first number of the advisory lock under which the tables are made: `FLOE`.
const MAKING: i32 = 0x464c_4f45;

/// All that makes a journal. The tail row changes in place with every commit; it has a page of its own for that, and no
/// index on what changes. Chunks of an image are stored as they are: compressing them would cost the server more than
/// it saves.
const TABLES: &str = "
CREATE TABLE journal (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), format integer NOT NULL,
    id bytea NOT NULL CHECK (octet_length(id) = 16));
CREATE TABLE tail (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), last bigint NOT NULL, link bigint NOT NULL,
    attempt bytea NOT NULL, bytes bigint NOT NULL)
    WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE TABLE entries (
    lsn bigint PRIMARY KEY, attempt bytea NOT NULL, envelope bytea NOT NULL, changes bytea NOT NULL,
    crc bigint NOT NULL, link bigint NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE TABLE images (
    generation integer PRIMARY KEY CHECK (generation IN (0, 1)), lsn bigint NOT NULL, fold bytea NOT NULL,
    chunks integer NOT NULL, bytes bigint NOT NULL, upto bigint NOT NULL);
CREATE TABLE chunks (
    generation integer NOT NULL, chunk integer NOT NULL, pairs bytea NOT NULL, crc bigint NOT NULL,
    PRIMARY KEY (generation, chunk))
    WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 50);
ALTER TABLE chunks ALTER COLUMN pairs SET STORAGE EXTERNAL;
INSERT INTO tail (last, link, attempt, bytes) VALUES (0, 0, decode(repeat('00', 16), 'hex'), 0);
";

/// Refuses a server that could lose what it acknowledged, or that takes no writes. `synchronous_commit` is set for each
/// session; `fsync` is the server's own.
///
/// A warning would not do for `fsync=off`: the promise of every acknowledgement above rests on this sync, and a server
/// is set like that for tests, never for data.
pub(super) async fn check_server(client: &Client, server: &Server) -> Result<(), PostgresOpenError> {
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('server_version_num')::integer, \
             current_setting('autovacuum')",
            &[],
        )
        .await?;
    let (recovers, fsync, version): (bool, &str, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    judge_server(recovers, fsync, version, &server.shown())?;
    if row.try_get::<_, &str>(3)? != "on" {
        tracing::debug!("autovacuum is off in PostgreSQL: only the journal's own vacuum gives room back");
    }
    Ok(())
}

fn judge_server(recovers: bool, fsync: &str, version: i32, shown: &str) -> Result<(), PostgresOpenError> {
    if version / 10_000 < SERVER_MIN {
        return Err(PostgresOpenError::OldServer { found: version / 10_000, needed: SERVER_MIN });
    }
    if recovers {
        return Err(PostgresOpenError::Standby(shown.to_owned()));
    }
    match fsync {
        "on" => Ok(()),
        _ => Err(PostgresOpenError::Unsynced(shown.to_owned())),
    }
}

/// Makes the tables if they are missing, and returns the id of the journal. `id` is that of a new one.
pub(super) async fn ensure(client: &Client, server: &Server, id: u128) -> Result<u128, PostgresOpenError> {
    if let Some(found) = find(client).await? {
        return Ok(found);
    }
    // A connection that is dropped half-way undoes this.
    client.batch_execute("BEGIN").await?;
    client.query_one("SELECT pg_advisory_xact_lock($1, $2)", &[&MAKING, &server.lock_key()]).await?;
    // Another broker may have been first, and its tables are seen only now.
    let found = match find(client).await? {
        Some(found) => found,
        None => {
            make(client, server, id).await?;
            id
        }
    };
    client.batch_execute("COMMIT").await?;
    Ok(found)
}

/// The id of a journal that must be there, and that must be the expected one, if the caller knows it.
pub(super) async fn find_expected(
    client: &Client,
    server: &Server,
    expected: Option<u128>,
) -> Result<u128, PostgresOpenError> {
    match (find(client).await?, expected) {
        (Some(found), Some(expected)) if found != expected => {
            Err(PostgresOpenError::OtherJournal { expected, found })
        }
        (Some(found), _) => Ok(found),
        (None, _) => {
            let (schema, server) = (server.schema.clone(), server.shown());
            Err(PostgresOpenError::None { schema, server })
        }
    }
}

/// The id of the journal in the schema, if there is one. `search_path` names the schema and nothing else.
async fn find(client: &Client) -> Result<Option<u128>, PostgresOpenError> {
    let there = client.query_one("SELECT to_regclass('journal') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT format, id FROM journal", &[]).await?;
    let row =
        row.ok_or_else(|| PostgresOpenError::Damaged("the row of table journal is missing".to_owned()))?;
    identity(row.try_get(0)?, row.try_get(1)?).map(Some)
}

/// The id of a journal, if this build may work on it.
pub(super) fn identity(format: i32, id: &[u8]) -> Result<u128, PostgresOpenError> {
    if format > FORMAT {
        return Err(PostgresOpenError::NewerFormat { found: format, known: FORMAT });
    }
    let id: [u8; 16] =
        id.try_into().map_err(|_| PostgresOpenError::Damaged("the id of the journal is cut".to_owned()))?;
    Ok(u128::from_be_bytes(id))
}

async fn make(client: &Client, server: &Server, id: u128) -> Result<(), PostgresOpenError> {
    let schema = client
        .query_opt(
            "SELECT (SELECT count(*) FROM pg_class \
                      WHERE relnamespace = n.oid AND relkind IN ('r', 'p', 'v', 'm', 'f')) \
             FROM pg_namespace n WHERE nspname = $1",
            &[&server.schema],
        )
        .await?;
    match schema.map(|row| row.try_get::<_, i64>(0)).transpose()? {
        None => client.batch_execute(&format!("CREATE SCHEMA {}", server.quoted())).await?,
        Some(0) => {}
        Some(tables) => {
            let (schema, server) = (server.schema.clone(), server.shown());
            return Err(PostgresOpenError::Foreign { schema, server, tables });
        }
    }
    client.batch_execute(TABLES).await?;
    let id = id.to_be_bytes();
    client.execute("INSERT INTO journal (format, id) VALUES ($1, $2)", &[&FORMAT, &&id[..]]).await?;
    tracing::info!(schema = server.schema, "made a journal in PostgreSQL");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases in the field have these tables. A change of them needs another format, and a way from the one before.
    #[test]
    fn golden() {
        assert_eq!((FORMAT, crc32c::crc32c(TABLES.as_bytes())), (1, GOLDEN_TABLES));
    }

    const GOLDEN_TABLES: u32 = 0xabe6_9602;

    #[test]
    fn a_newer_format_and_a_cut_id_are_refused() {
        assert_eq!(identity(1, &[1; 16]), Ok(u128::from_be_bytes([1; 16])));
        let newer = PostgresOpenError::NewerFormat { found: 2, known: 1 };
        assert_eq!(identity(2, &[1; 16]), Err(newer));
        assert!(matches!(identity(1, &[1; 15]), Err(PostgresOpenError::Damaged(_))));
    }

    #[test]
    fn a_server_that_could_lose_commits_is_refused() {
        let judge = |recovers, fsync, version| judge_server(recovers, fsync, version, "host/db");
        assert_eq!(judge(false, "on", 150_018), Ok(()));
        assert_eq!(judge(true, "on", 150_018), Err(PostgresOpenError::Standby("host/db".into())));
        assert_eq!(judge(false, "off", 150_018), Err(PostgresOpenError::Unsynced("host/db".into())));
        let old = PostgresOpenError::OldServer { found: 12, needed: 13 };
        assert_eq!(judge(false, "on", 120_002), Err(old));
    }
}
