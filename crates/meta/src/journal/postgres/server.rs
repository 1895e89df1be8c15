//! Where the journal is: the address of the server, the schema, and what else a caller chooses.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::limits::{
    POSTGRES_CONNECT_TIMEOUT, POSTGRES_IMAGE_BYTES, POSTGRES_LOOK, POSTGRES_NETWORK_TIMEOUT,
};

use super::error::PostgresOpenError;
use super::tls::Tls;

/// The schema unless a setting says something else.
const SCHEMA: &str = "floe";

/// What PostgreSQL cuts names to.
const NAME_BYTES_MAX: usize = 63;

/// What a caller of [`crate::PostgresJournal::open`] chooses.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`. Several hosts may have commas between them: the one that takes
    /// writes is used. With `?sslmode=require`, the connection is encrypted and the server's certificate verified by
    /// the roots of the system (or those in the file that `SSL_CERT_FILE` names); otherwise it is neither.
    pub address: String,
    /// The schema of the tables. A schema has one journal.
    pub schema: String,
    /// The id that the journal must have, if the caller knows it: another cluster's is refused, and none is made.
    pub id: Option<u128>,
    /// Bytes of entries behind the image at which the next one is due.
    pub image_bytes: u64,
    /// How often a broker looks whether there is such work.
    pub look: Duration,
}

impl PostgresOptions {
    /// The journal at this address, with the defaults of [`crate::limits`].
    pub fn at(address: &str) -> PostgresOptions {
        PostgresOptions {
            address: address.to_owned(),
            schema: SCHEMA.to_owned(),
            id: None,
            image_bytes: POSTGRES_IMAGE_BYTES,
            look: POSTGRES_LOOK,
        }
    }
}

/// The server, as connections need it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// The schema, as it was given.
    pub(super) schema: String,
}

impl Server {
    pub(super) fn of(options: &PostgresOptions) -> Result<Server, PostgresOpenError> {
        let mut config = Config::from_str(&options.address)
            .map_err(|error| PostgresOpenError::Address(super::error::said(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(PostgresOpenError::Address("it names no host".to_owned()));
        }
        // What TLS would be without a verified certificate is not worth its name, so there is no middle way.
        let (tls, mode) = match config.get_ssl_mode() {
            SslMode::Require => (Tls::of_system()?, SslMode::Require),
            _ => (Tls::default(), SslMode::Disable),
        };
        let schema = &options.schema;
        if schema.is_empty() || schema.len() > NAME_BYTES_MAX || schema.contains('\0') {
            return Err(PostgresOpenError::Address(format!(
                "the schema must have 1 to {NAME_BYTES_MAX} bytes: {schema:?}"
            )));
        }
        if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            return Err(PostgresOpenError::Address("write an @ in the password as %40".to_owned()));
        }
        if config.get_application_name().is_none() {
            config.application_name("floe");
        }
        config
            .ssl_mode(mode)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(POSTGRES_CONNECT_TIMEOUT)
            .tcp_user_timeout(POSTGRES_NETWORK_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(POSTGRES_NETWORK_TIMEOUT / 2)
            .keepalives_interval(POSTGRES_NETWORK_TIMEOUT / 5)
            .keepalives_retries(3);
        Ok(Server { config, tls, schema: schema.clone() })
    }

    /// The schema as a statement names it.
    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// Hosts, ports and database for people, without a password.
    pub(super) fn shown(&self) -> String {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
        });
        let hosts: Vec<String> = hosts.collect();
        format!("{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or("(the user's database)"))
    }

    /// The key of advisory locks: one for each schema. It needs not be unique: two schemas with one key wait for each
    /// other, that is all.
    pub(super) fn lock_key(&self) -> i32 {
        crc32c::crc32c(self.schema.as_bytes()).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, schema: &str) -> Result<Server, PostgresOpenError> {
        Server::of(&PostgresOptions { schema: schema.to_owned(), ..PostgresOptions::at(address) })
    }

    #[test]
    fn addresses_are_shown_without_a_password() {
        let found = server("postgres://ann:secret@one:5001,two:5002/meta", "floe").unwrap();
        assert_eq!(found.shown(), "one:5001,two:5002/meta");
        let found = server("postgres://ann:secret@one/", "a \"b\"").unwrap();
        assert_eq!(found.shown(), "one:5432/(the user's database)");
        assert_eq!(found.quoted(), "\"a \"\"b\"\"\"");
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (address, schema) in
            [("mysql://host/x", "floe"), ("postgres:///x", "floe"), ("postgres://host/x", ""), ("", "floe")]
        {
            let refused = server(address, schema).unwrap_err();
            assert!(matches!(refused, PostgresOpenError::Address(_)), "{refused}");
        }
        let long = "s".repeat(64);
        assert!(matches!(server("postgres://host/x", &long), Err(PostgresOpenError::Address(_))));
    }

    #[test]
    fn a_connection_is_encrypted_and_verified_or_neither() {
        for (address, mode) in [("", SslMode::Disable), ("?sslmode=prefer", SslMode::Disable)] {
            let found = server(&format!("postgres://host/x{address}"), "floe").unwrap();
            assert_eq!(
                (found.config.get_ssl_mode(), format!("{:?}", found.tls)),
                (mode, "Tls(none)".to_owned())
            );
        }
        match server("postgres://host/x?sslmode=require", "floe") {
            Ok(found) => assert_eq!(found.config.get_ssl_mode(), SslMode::Require),
            Err(error) => assert!(matches!(error, PostgresOpenError::Tls(_)), "{error}"),
        }
    }
}
