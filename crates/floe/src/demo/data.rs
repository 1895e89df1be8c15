//! The sample: the flights that left New York in January 2013, and the airlines (nycflights13, CC0).

use std::io::Read;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Departures in `flights-2013-01.csv.gz`; the demo checks its answers against it.
pub(crate) const FLIGHTS: usize = 27_004;
/// Airlines in `airlines.csv`.
#[cfg(test)]
pub(crate) const AIRLINES: usize = 16;

const FLIGHTS_CSV_GZ: &[u8] = include_bytes!("../../data/flights-2013-01.csv.gz");
const AIRLINES_CSV: &[u8] = include_bytes!("../../data/airlines.csv");
/// The sample unpacks to 2.5 MB; more than this would not be the sample.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;

/// One record to produce: the key and the JSON value.
pub(crate) struct Sample {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
}

/// The flights in the order of departure, keyed by carrier.
pub(crate) fn flights() -> Result<Vec<Sample>> {
    let mut csv = Vec::new();
    flate2::read::GzDecoder::new(FLIGHTS_CSV_GZ)
        .take(UNPACKED_BYTES_MAX)
        .read_to_end(&mut csv)
        .context("cannot unpack the sample")?;
    samples(&csv)
}

/// The airlines, keyed by carrier.
pub(crate) fn airlines() -> Result<Vec<Sample>> {
    samples(AIRLINES_CSV)
}

fn samples(csv: &[u8]) -> Result<Vec<Sample>> {
    let mut reader = csv::Reader::from_reader(csv);
    let header = reader.headers()?.clone();
    let mut samples = Vec::new();
    for row in reader.records() {
        let row = row?;
        let mut object = Map::new();
        let mut key = String::new();
        for (name, cell) in header.iter().zip(row.iter()) {
            if name == "carrier" {
                cell.clone_into(&mut key);
            }
            object.insert(name.to_owned(), json(cell));
        }
        samples.push(Sample { key, value: serde_json::to_vec(&object)? });
    }
    Ok(samples)
}

/// `NA` is null, digits are a number, the rest is text.
fn json(cell: &str) -> Value {
    if cell == "NA" {
        return Value::Null;
    }
    cell.parse::<i64>().map_or_else(|_| Value::String(cell.to_owned()), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_what_the_demo_says_it_is() {
        let flights = flights().unwrap();
        assert_eq!(flights.len(), FLIGHTS);
        assert_eq!(airlines().unwrap().len(), AIRLINES);
        let first: Value = serde_json::from_slice(&flights[0].value).unwrap();
        assert_eq!(first["carrier"], "UA");
        assert_eq!(first["dep_delay"], 2);
        assert_eq!(first["time_hour"], "2013-01-01T10:00:00Z");
        let cancelled = flights.iter().filter(|f| {
            let value: Value = serde_json::from_slice(&f.value).unwrap();
            value["dep_time"].is_null()
        });
        assert_eq!(cancelled.count(), 521);
    }
}
