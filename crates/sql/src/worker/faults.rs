//! A worker that misbehaves on purpose, as no statement that is known does. Only tests allow it ([`super::Program`]).

use std::hint::black_box;

use bytes::Bytes;

/// Does what a text says that begins with `floe-fault`.
pub(super) fn misbehave(text: &str) {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some("floe-fault") {
        return;
    }
    match words.next() {
        Some("abort") => floe_env::end_process("a planted fault", &"abort"),
        Some("overflow") => {
            black_box(deep(black_box(u64::MAX)));
        }
        Some("spin") => while black_box(true) {},
        Some("eat") => {
            // What no pool counts, as fast as the machine gives it.
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            while black_box(true) {
                eaten.push(vec![1; 1 << 20]);
            }
            black_box(eaten);
        }
        Some("allocate") => {
            black_box(Bytes::from(Vec::<u8>::with_capacity(usize::MAX / 4)));
        }
        _ => {}
    }
}

#[expect(unconditional_recursion, reason = "the stack has to overflow")]
fn deep(depth: u64) -> u64 {
    black_box([depth; 64])[0] + deep(black_box(depth - 1)) + black_box(1)
}
