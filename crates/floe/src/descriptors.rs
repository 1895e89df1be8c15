//! How the file descriptors of the process are shared out.
//!
//! Every connection takes one, and a process has as many as its system allows (`ulimit -n`). Without a plan, clients
//! take all of them, and then the journal cannot be opened, no Parquet file read, and nobody can ask whether the broker
//! is alive. So a part is kept for files and listeners, and each front gets a share of the rest.

use anyhow::{Result, ensure};
use floe_http::limits::{CONNECTIONS_MAX as HTTP_CONNECTIONS_MAX, PROBE_CONNECTIONS};

/// The least number of descriptors with which a broker starts.
const DESCRIPTORS_MIN: u64 = 256;
/// Of all descriptors, those for files, listeners and health are 1 / this.
const FILES_SHARE: u64 = 4;
/// Of the descriptors for connections, those for HTTP are 1 / this at most.
const HTTP_SHARE: u64 = 4;

/// The connections that each front may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) kafka: usize,
    pub(crate) kafka_per_ip: usize,
    pub(crate) http: usize,
}

/// Shares `descriptors` out. The Kafka front is asked to have `connections`, and `per_ip` of one address.
///
/// # Errors
/// The process may open too few files.
pub(crate) fn share(descriptors: u64, connections: usize, per_ip: usize) -> Result<Shares> {
    ensure!(
        descriptors >= DESCRIPTORS_MIN,
        "this process may have {descriptors} files and connections open, a broker needs {DESCRIPTORS_MIN}: raise the \
         limit with `ulimit -n` or LimitNOFILE"
    );
    let for_connections = descriptors - descriptors / FILES_SHARE;
    let http = as_usize(for_connections / HTTP_SHARE).min(HTTP_CONNECTIONS_MAX + PROBE_CONNECTIONS);
    let left = as_usize(for_connections) - http;
    let kafka = connections.min(left);
    // One address keeps the part of all connections that it was meant to have.
    let kafka_per_ip = match kafka < connections {
        true => (per_ip.saturating_mul(kafka) / connections).max(1),
        false => per_ip,
    };
    Ok(Shares { kafka, kafka_per_ip, http: http - PROBE_CONNECTIONS })
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(shares: Shares) -> usize {
        shares.kafka + shares.http + PROBE_CONNECTIONS
    }

    #[test]
    fn with_many_descriptors_each_front_has_what_was_asked_for() {
        let shares = share(1 << 20, 8_192, 2_000).unwrap();
        assert_eq!(shares, Shares { kafka: 8_192, kafka_per_ip: 2_000, http: 1_024 });
    }

    #[test]
    fn with_few_descriptors_a_quarter_stays_for_files() {
        for descriptors in [256, 300, 1_024, 4_096, 10_000] {
            let shares = share(descriptors, 8_192, 2_000).unwrap();
            let files = as_usize(descriptors) - all(shares);
            assert!(files as u64 >= descriptors / FILES_SHARE, "{descriptors}: {shares:?}");
            assert!(shares.http >= 32 && shares.kafka > shares.http, "{descriptors}: {shares:?}");
            assert!(shares.kafka_per_ip >= 35 && shares.kafka_per_ip * 4 < shares.kafka, "{shares:?}");
        }
        assert_eq!(share(1_024, 100, 50).unwrap().kafka, 100, "fewer are asked for");
        let refused = share(255, 8_192, 2_000).unwrap_err().to_string();
        assert!(refused.contains("ulimit -n"), "{refused}");
    }
}
