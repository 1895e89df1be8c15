//! How fast JSON becomes Arrow on one core: `cargo run --release -p floe-schema --example throughput [file.jsonl]`.
//! Without a file it makes records that look like flights.

use std::{env, error::Error, fs};

use floe_schema::{Decoder, Kind, Row, TableSchema};

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn main() -> Result<(), Box<dyn Error>> {
    let text = match env::args().nth(1) {
        Some(path) => fs::read_to_string(path)?,
        None => (0..200_000).map(flight).collect(),
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut schema = TableSchema::new(Kind::Json);
    for round in 0..5 {
        #[expect(clippy::disallowed_methods, reason = "an example measures the real clock")]
        let begun = std::time::Instant::now();
        let mut rows = 0;
        for chunk in lines.chunks(8192) {
            let mut decoder = Decoder::new(schema);
            for (offset, line) in (0..).zip(chunk) {
                let value = Some(line.as_bytes());
                decoder.push(&Row { partition: 0, offset, timestamp: 0, key: None, value, headers: &[] })?;
            }
            let (wider, batch) = decoder.finish();
            schema = wider;
            rows += batch.num_rows();
        }
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let megabytes = text.len() as f64 / 1e6;
        println!("round {round}: {rows} rows, {megabytes:.1} MB, {:.0} MB/s", megabytes / seconds);
    }
    Ok(())
}

fn flight(n: u32) -> String {
    let (day, hour, delay) = (n / 7200 % 28 + 1, n / 300 % 24, i64::from(n % 97) - 20);
    format!(
        "{{\"year\":2013,\"month\":1,\"day\":{day},\"dep_time\":{},\"dep_delay\":{delay},\"arr_time\":{},\
         \"carrier\":\"UA\",\"flight\":{},\"tailnum\":\"N{}\",\"origin\":\"EWR\",\"dest\":\"IAH\",\"air_time\":227.5,\
         \"distance\":1400,\"time_hour\":\"2013-01-{day:02}T{hour:02}:00:00Z\"}}\n",
        n % 2400,
        (n + 200) % 2400,
        n % 6000,
        n % 9999,
    )
}
