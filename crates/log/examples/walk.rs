//! What it costs to look inside a batch before it is taken, for each codec.
//!
//! `cargo run --release -p floe-log --example walk -- [seconds] [batch bytes] [file of lines]`
//!
//! The records are the lines of the file, or made-up orders as JSON. The last column is the checksum of the same batch,
//! which every batch pays in any case.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::header::validate;
use floe_log::records::Builder;
use floe_log::verify::walk;

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: f64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (seconds, batch_bytes) = (Duration::from_secs_f64(number(1.0)), number(65_536.0) as usize);
    let lines: Vec<String> = match arguments.next() {
        Some(path) => {
            std::fs::read_to_string(path).expect("a file of text").lines().map(str::to_owned).collect()
        }
        None => (0..100_000).map(order).collect(),
    };
    println!(
        "codec    records   bytes sent   decoded   walk: MB/s sent  MB/s decoded  ns/record   checksum: MB/s sent"
    );
    for codec in CODECS {
        let mut builder = Builder::new(codec);
        for (at, line) in lines.iter().cycle().enumerate() {
            builder.push(at as i64, Some(&(at as u64).to_be_bytes()), Some(line.as_bytes()), &[]);
            if builder.size() >= batch_bytes {
                break;
            }
        }
        let batch = builder.build();
        let (checked, header) = rate(seconds, || validate(&batch).expect("the batch is whole"));
        let codec = header.compression().expect("a known codec");
        let (walked, _) = rate(seconds, || {
            let mut left = u64::MAX;
            walk(&header, codec, &batch, &mut left).expect("the records decode")
        });
        println!(
            "{:8} {:7} {:12} {:9} {:17.0} {:13.0} {:10.1} {:21.0}",
            codec.name(),
            builder.count(),
            batch.len(),
            builder.size(),
            batch.len() as f64 * walked / 1e6,
            builder.size() as f64 * walked / 1e6,
            1e9 / walked / builder.count() as f64,
            batch.len() as f64 * checked / 1e6,
        );
    }
}

/// How often a second `work` is done, and what it returned last.
fn rate<T>(time: Duration, work: impl Fn() -> T) -> (f64, T) {
    let env = Env::real();
    let begin = env.monotonic();
    let mut rounds = 0.0;
    loop {
        let mut last = work();
        for _ in 1..16 {
            last = std::hint::black_box(work());
        }
        rounds += 16.0;
        let took = env.monotonic() - begin;
        if took >= time {
            return (rounds / took.as_secs_f64(), last);
        }
    }
}

fn order(n: u32) -> String {
    let (day, amount, customer) =
        (n / 4_000 % 28 + 1, n.wrapping_mul(2_654_435_761) % 90_000 + 99, n % 1_777);
    format!(
        r#"{{"order_id":{n},"customer":"c-{customer:05}","day":"2026-02-{day:02}","amount":{}.{:02},"currency":"EUR","status":"{}"}}"#,
        amount / 100,
        amount % 100,
        ["paid", "open", "returned"][(n % 3) as usize],
    )
}
