//! Holes in the log are damage.

use floe_log::{Offset, PartitionId, batch::Batch, walk::ReadError};

/// The batches of a read at `at`, below the high watermark, if they leave out no offset. Every offset there is in a
/// batch, also those of markers and those without records; a view that went on behind a hole would lose records
/// silently.
///
/// # Errors
/// [`ReadError::Corrupt`] with the offset that is missing.
pub fn gapless(partition: PartitionId, at: Offset, batches: Vec<Batch>) -> Result<Vec<Batch>, ReadError> {
    let mut next = at;
    for batch in &batches {
        if batch.base_offset > next {
            break;
        }
        next = batch.next_offset();
    }
    let end = batches.last().map(Batch::next_offset);
    if end == Some(next) {
        return Ok(batches);
    }
    Err(ReadError::Corrupt(format!("the log of {partition} has no record at offset {next}")))
}

#[cfg(test)]
mod tests {
    use floe_log::{TopicId, codec::Compression, records::Builder};

    use super::*;

    #[test]
    fn a_hole_in_the_log_is_not_skipped() {
        let partition = PartitionId::new(TopicId(1), 0);
        let batch = |base: i64, count: usize| {
            let mut builder = Builder::new(Compression::None);
            for _ in 0..count {
                builder.push(0, None, Some(b"v"), &[]);
            }
            Batch::new(Offset(base), builder.build()).unwrap()
        };
        let check = |batches: Vec<Batch>, missing: Option<i64>| {
            let found = gapless(partition, Offset(5), batches).err();
            let wanted = missing.map(|at| format!("the log of {partition} has no record at offset {at}"));
            assert_eq!(found, wanted.map(ReadError::Corrupt));
        };
        check(vec![batch(5, 2), batch(7, 1)], None);
        check(vec![batch(3, 3), batch(6, 1)], None);
        check(vec![], Some(5));
        check(vec![batch(6, 1)], Some(5));
        check(vec![batch(3, 4), batch(8, 1)], Some(7));
    }
}
