//! Measures what an acknowledged write costs: `acknowledge <directory> <ring|files> <bytes> [seconds] [callers]`.
//!
//! Each caller brings bytes, waits until they are durable with their commit, and goes on. `ring` carries the bytes in
//! the frame of the commit. `files` writes them into a preallocated file and syncs it, and commits in the SQLite
//! journal then, as a broker once did. With 0 bytes both only commit. The output is the latency, and for each
//! acknowledgement the processor time, the bytes that the process gave to the disk, and the fresh pages that it took.
//! `strace -fc` counts the syncs.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, lock, sync_data};
use floe_meta::{
    Attachment, DecodeError, Envelope, Lsn, Meta, Options, RingJournal, RingOptions, SqliteJournal, Tx,
    postcard_record,
};
use serde::{Deserialize, Serialize};

/// Bytes of the file that stands for the store's packs.
const PACK_BYTES: u64 = 256 << 20;

/// About as long as an extent.
#[derive(Serialize, Deserialize)]
struct Value(u64, u64, u64, [u8; 24]);
postcard_record!(Value, 200, 1, u64);

type Failure = Box<dyn Error + Send + Sync>;

/// Where the bytes go.
enum Way {
    Ring,
    Pack(Pack),
}

/// A preallocated file, overwritten from its begin to its end, as the packs of the local store are.
struct Pack {
    file: File,
    next: Mutex<u64>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, way, bytes, ..] = &arguments[..] else {
        return Err("which directory, way and bytes?".into());
    };
    let number = |at: usize, usual: u64| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let (bytes, seconds, callers) = (bytes.parse::<usize>()?, number(3, 5)?, number(4, 1)?);
    let env = Env::real();
    let directory = Path::new(directory);
    let (meta, way) = match way.as_str() {
        "ring" => {
            let journal = RingJournal::open(&env, directory, RingOptions::default())?;
            (Meta::open(env.clone(), Arc::new(journal), Options::default()).await?, Way::Ring)
        }
        "files" => {
            let journal = SqliteJournal::open(&env, directory)?;
            let pack = Pack::open(&directory.join("pack"))?;
            (Meta::open(env.clone(), Arc::new(journal), Options::default()).await?, Way::Pack(pack))
        }
        other => return Err(format!("no way {other}").into()),
    };
    // The first commits make files and images.
    let way = Arc::new(way);
    call(env.clone(), meta.clone(), Arc::clone(&way), 1 << 60, bytes, Duration::from_secs(2)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = Usage::now()?;
    let began = env.monotonic();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let call = call(
            env.clone(),
            meta.clone(),
            Arc::clone(&way),
            caller << 40,
            bytes,
            Duration::from_secs(seconds),
        );
        tasks.push(env.spawn("caller", call));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let (elapsed, used) = (began.elapsed(), Usage::now()?.since(&before));
    latencies.sort_unstable();
    report(&latencies, elapsed, &used, bytes);
    Ok(())
}

fn report(latencies: &[Duration], elapsed: Duration, used: &Usage, bytes: usize) {
    let count = latencies.len();
    let at = |part: f64| latencies[((count - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let each = |number: u64| number as f64 / count as f64;
    println!(
        "{bytes} bytes: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms, max {:.1} ms; each: {:.0} us of processor, {:.0} bytes \
         written, {:.1} minor faults",
        count as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        each(used.micros),
        each(used.written),
        each(used.faults),
    );
}

/// What the process has used.
struct Usage {
    micros: u64,
    written: u64,
    faults: u64,
}

impl Usage {
    fn now() -> Result<Usage, Failure> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name of the program is in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| -> Result<u64, Failure> {
            Ok(fields.get(at).ok_or("a field of the process is missing")?.parse()?)
        };
        // Ticks of 10 ms, of all threads, in user and in system mode.
        let ticks = field(11)? + field(12)?;
        let io = std::fs::read_to_string("/proc/self/io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(Usage {
            micros: ticks * 10_000,
            written: written.ok_or("the system does not count writes")?.parse()?,
            faults: field(7)?,
        })
    }

    fn since(&self, before: &Usage) -> Usage {
        Usage {
            micros: self.micros - before.micros,
            written: self.written - before.written,
            faults: self.faults - before.faults,
        }
    }
}

impl Pack {
    fn open(path: &Path) -> std::io::Result<Pack> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..PACK_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        sync_data(&file, "the pack");
        Ok(Pack { file, next: Mutex::new(0) })
    }

    fn put(&self, bytes: &[u8]) -> std::io::Result<()> {
        let room = (bytes.len() as u64 + 512).next_multiple_of(4096);
        let at = {
            let mut next = lock(&self.next);
            let at = if *next + room > PACK_BYTES { 0 } else { *next };
            *next = at + room;
            at
        };
        self.file.write_all_at(bytes, at)?;
        sync_data(&self.file, "the pack");
        Ok(())
    }
}

async fn call(
    env: Env,
    meta: Meta,
    way: Arc<Way>,
    first: u64,
    bytes: usize,
    time: Duration,
) -> Result<Vec<Duration>, Failure> {
    let payload = Bytes::from(vec![first as u8 | 1; bytes]);
    let crc = crc32c::crc32c(&payload);
    let began = env.monotonic();
    let mut latencies = Vec::new();
    while began.elapsed() < time {
        let key = first + latencies.len() as u64 % 1_000;
        let envelope = Envelope::client("User:bench".into(), "bench".into());
        let command = move |tx: &mut Tx<'_>| {
            tx.put(&key, &Value(tx.lsn().0 << 30, key << 10, key, [7; 24]));
            Ok::<_, DecodeError>(())
        };
        let asked = env.monotonic();
        let lsn = match &*way {
            _ if bytes == 0 => meta.commit(envelope, command).await?.lsn,
            Way::Ring => {
                let attachment = Attachment::new(vec![payload.clone()], crc);
                meta.commit_attached(envelope, attachment, |_, _| (), command).await?.lsn
            }
            Way::Pack(_) => {
                let (way, payload) = (Arc::clone(&way), payload.clone());
                let put = move || match &*way {
                    Way::Pack(pack) => pack.put(&payload),
                    Way::Ring => Ok(()),
                };
                env.blocking(put).await?;
                meta.commit(envelope, command).await?.lsn
            }
        };
        latencies.push(asked.elapsed());
        // Merging would take the bytes out of the ring.
        meta.released(Lsn(lsn.0.saturating_sub(100)));
    }
    Ok(latencies)
}
