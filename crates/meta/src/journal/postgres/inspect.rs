//! A look at a journal in PostgreSQL that changes nothing, for `floe check`.

use floe_env::Env;

use super::error::PostgresOpenError;
use super::read;
use super::schema;
use super::server::{PostgresOptions, Server};
use super::session::{Role, Session};
use super::state::Shared;
use crate::journal::inspected::Inspected;
use crate::load::fold;

/// What such a look cannot see.
const UNPROVED: &str = "\
    a PostgreSQL server that lost its newest commits looks whole: that shows only in the high water of \
    the writers and in the objects of the log. Of the two images, the newest sound one was read";

/// Reads the journal in a server: the newest sound image and every entry behind it, with their checksums and links.
/// Brokers may write to it meanwhile: it is that of one moment.
///
/// # Errors
/// There is none, it is not the expected one, or the server does not answer.
pub async fn inspect_postgres(env: &Env, options: PostgresOptions) -> Result<Inspected, PostgresOpenError> {
    let server = Server::of(&options)?;
    let session = Session::connect(env, &server, Role::Reads, None).await?;
    let id = schema::find_expected(&session.client, &server, options.id).await?;
    drop(session);
    let shared = Shared::new(env, server, options, id);
    let mut found = Inspected { notes: vec![UNPROVED.to_owned()], ..Inspected::default() };
    let loaded = match read::load(&shared).await {
        Ok(loaded) => fold(loaded),
        Err(error) => Err(error.into()),
    };
    match loaded {
        Ok((snapshot, _)) => (found.last, found.snapshot) = (snapshot.lsn(), snapshot),
        Err(error) => found.journal.push(error.to_string()),
    }
    Ok(found)
}
