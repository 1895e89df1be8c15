//! The partition of a key, computed as by the Java client, so that records of one key stay together.

/// The partition of a key among `partitions`: murmur2, the sign dropped, modulo.
///
/// # Panics
/// Without partitions.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Murmur2 in 32 bits with the seed that Kafka's clients share.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().expect("a chunk has four bytes"));
        word = word.wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own client. If they changed, keys would move to other partitions.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        let known = [("", 275_646_681, 2), ("a", 2_731_586_172, 5), ("21", 3_321_034_988, 3)];
        let longer = [("abc", 479_470_107, 4), ("foobar", 3_504_634_814, 0), ("UA1545", 2_293_389_670, 3)];
        for (key, hash, partition) in known.into_iter().chain(longer) {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
            assert_eq!(partition_for_key(key.as_bytes(), 7), partition, "{key}");
        }
    }
}
