//! What the connections of one broker share.

use std::sync::Arc;

use floe_env::Env;
use floe_group::Coordinator;
use floe_log::Log;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::config::Config;
use crate::conn::doorman::{ConnectionLimits, Doorman};
use crate::directory::Directory;
use crate::fetch::session::Sessions;
use crate::limits;

/// Kafka's name for a client without authentication: here, every client.
const PRINCIPAL: &str = "User:ANONYMOUS";

/// What the connections of one broker share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) config: Config,
    pub(crate) cluster_id: String,
    pub(crate) principal: Arc<str>,
    pub(crate) directory: Directory,
    pub(crate) groups: Coordinator,
    pub(crate) sessions: Sessions,
    /// Memory for requests other than produces.
    pub(crate) requests: Budget,
    /// Memory for answers until they are written.
    pub(crate) answers: Budget,
    pub(crate) shutdown: watch::Sender<bool>,
    pub(crate) doorman: Doorman,
}

impl Shared {
    pub(crate) fn new(env: Env, log: Log, config: Config) -> Shared {
        let groups = Coordinator::start(&env, log.meta(), config.group_rules(), config.offsets_retention);
        let directory = Directory::new(log.meta());
        let doorman = Doorman::new(ConnectionLimits::of(&config, &log));
        let requests = Budget::measured(config.request_bytes_max, "floe_kafka_request_bytes");
        let answers = Budget::measured(config.answer_bytes_max, "floe_kafka_answer_bytes");
        let sessions = Sessions::new(config.fetch_sessions_max, limits::FETCH_SESSIONS_PARTITIONS_MAX);
        let cluster_id = log.cluster_id();
        let (shutdown, _) = watch::channel(false);
        let principal = PRINCIPAL.into();
        Shared {
            env,
            log,
            config,
            cluster_id,
            principal,
            directory,
            groups,
            sessions,
            requests,
            answers,
            shutdown,
            doorman,
        }
    }
}
