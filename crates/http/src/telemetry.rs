//! Metrics: one recorder for the process, rendered as Prometheus text at `/metrics`.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use floe_env::Env;

use crate::help;
use crate::limits::METRICS_UPKEEP_INTERVAL;

/// Buckets of `*_seconds`: from a local metadata commit (0.1 ms) to the time limit of a query.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];
/// Buckets of `*_bytes`: from one record to a large segment.
const BYTES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];
/// Buckets of all other histograms: counts (requests per upload, batches per object, rows).
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("metrics could not be installed: {0}; install them once, before anything is counted")]
pub struct InstallError(String);

impl Metrics {
    /// Installs the recorder of this process and keeps it folded in the background.
    ///
    /// # Errors
    /// When a recorder is already installed.
    pub fn install(env: &Env) -> Result<Metrics, InstallError> {
        let recorder = recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| InstallError(error.to_string()))?;
        let folded = handle.clone();
        env.spawn("metrics upkeep", async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP_INTERVAL).await;
                folded.run_upkeep();
            }
        });
        Ok(Metrics { handle })
    }

    /// Metrics beside those of the process, for tests and for embedded servers that install no recorder.
    #[must_use]
    pub fn detached() -> Metrics {
        Metrics { handle: recorder().handle() }
    }

    /// The Prometheus text exposition of all metrics.
    #[must_use]
    pub fn render(&self) -> String {
        process();
        self.handle.render()
    }
}

/// A recorder that knows the words of every metric.
fn recorder() -> PrometheusRecorder {
    let recorder = builder().build_recorder();
    help::describe(&recorder);
    recorder
}

fn builder() -> PrometheusBuilder {
    let buckets = |builder: PrometheusBuilder, suffix: &str, values: &[f64]| {
        builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), values)
            .expect("the buckets are not empty")
    };
    let builder = PrometheusBuilder::new().set_buckets(COUNTS).expect("the buckets are not empty");
    buckets(buckets(builder, "_seconds", SECONDS), "_bytes", BYTES)
}

/// Sets CPU time and memory of this process, where the system tells them (Linux, `proc(5)`).
fn process() {
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    let status = std::fs::read_to_string("/proc/self/status").ok();
    if let Some(seconds) = stat.as_deref().and_then(cpu_seconds) {
        metrics::gauge!("floe_process_cpu_seconds").set(seconds);
    }
    for (field, gauge) in
        [("VmRSS:", "floe_process_resident_bytes"), ("VmHWM:", "floe_process_resident_peak_bytes")]
    {
        if let Some(bytes) = status.as_deref().and_then(|text| status_bytes(text, field)) {
            metrics::gauge!(gauge).set(bytes);
        }
    }
}

/// Fields 14 and 15 of `/proc/self/stat`: user and system time, in hundredths of a second (`USER_HZ`).
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the process is in parentheses and may contain anything, even blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

/// Reads a field of `/proc/self/status` that is in KiB. Returns bytes.
fn status_bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_files_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("garbage"), None);
        assert_eq!(status_bytes("VmHWM:\t 8 kB\nVmRSS:\t 4 kB\n", "VmRSS:"), Some(4096.0));
        assert_eq!(status_bytes("VmRSS:\t x kB", "VmRSS:"), None);
    }

    #[test]
    fn metrics_have_words_and_histograms_the_buckets_of_their_unit() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("floe_test_seconds").record(0.002);
            metrics::histogram!("floe_test_bytes").record(300.0);
            metrics::histogram!("floe_test_batches").record(3.0);
            metrics::gauge!("floe_http_connections").set(1.0);
        });
        let text = recorder.handle().render();
        assert!(text.contains(r#"floe_test_seconds_bucket{le="0.0025"} 1"#), "{text}");
        assert!(text.contains(r#"floe_test_bytes_bucket{le="1024"} 1"#), "{text}");
        assert!(text.contains(r#"floe_test_batches_bucket{le="4"} 1"#), "{text}");
        let described =
            "# HELP floe_http_connections Connections that are open.\n# TYPE floe_http_connections gauge\n";
        assert!(text.contains(described), "{text}");
    }
}
