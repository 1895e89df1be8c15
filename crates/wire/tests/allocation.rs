//! No input makes the decoder allocate more than 16 times its length plus 64 KiB.
//!
//! The allocator counts for the whole process, so this binary has one test only.

use bytes::Bytes;
use floe_wire::fuzz::{self, Check};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const INPUT_BYTES: usize = 16 * 1024;

/// The peak of allocated bytes, per byte of the input.
fn measure(input: &Bytes, decode: impl FnOnce(Bytes)) -> f64 {
    let input = input.clone();
    let (before, length) = (ALLOCATOR.current_usage(), input.len());
    ALLOCATOR.reset_peak_usage();
    decode(input);
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(peak <= 16 * length + 64 * 1024, "{peak} bytes for an input of {length}");
    peak as f64 / length as f64
}

/// Inputs with a large count and little content: a header of `zeros`, the count, then one byte repeated.
fn dense(zeros: usize, count: &[u8], filler: u8, length: usize) -> Bytes {
    let mut bytes = vec![0; zeros];
    bytes.extend_from_slice(count);
    bytes.resize(length, filler);
    bytes.into()
}

#[test]
fn memory_is_bounded_by_the_input() {
    let counts: [&[u8]; 7] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0, 0, 0x10, 0],
        &[0, 0, 0x7f, 0xff],
        &[0x80, 0x80, 0x01],
        &[0xff, 0xff, 0x03],
        &[0xff, 0x1f],
    ];
    let mut worst = 0f64;
    let mut decoded = 0;
    for &(api, versions) in fuzz::APIS {
        for version in versions.min..=versions.max {
            for zeros in 0..24 {
                for count in counts {
                    for filler in [0, 1, 2, 0xff] {
                        for length in [zeros + count.len(), INPUT_BYTES] {
                            // Large inputs are slow without optimisation. A third of the headers is enough.
                            if length == INPUT_BYTES && (zeros % 3 != 0 || filler == 0xff) {
                                continue;
                            }
                            let input = dense(zeros, count, filler, length);
                            let mut came_out = false;
                            let peak = measure(&input, |input| {
                                came_out = fuzz::request(api, version, input, Check::Decodes);
                            });
                            let other = measure(&input, |input| {
                                came_out |= fuzz::response(api, version, input, Check::Decodes);
                            });
                            decoded += usize::from(came_out);
                            if length == INPUT_BYTES {
                                worst = worst.max(peak).max(other);
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(worst > 10.0, "the inputs are too tame to show anything: {worst} times at most");
    assert!(decoded > 1_000, "hardly any input was a message: {decoded}");
}
