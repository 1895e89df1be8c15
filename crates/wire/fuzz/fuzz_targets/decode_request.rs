//! Requests and responses: the first two bytes choose the API, the direction and the version; the rest is the body. A
//! message that decodes must encode, and then decode to the same value.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    floe_wire::fuzz::any_message(input);
    floe_wire::fuzz::request_frame(Bytes::copy_from_slice(input));
    Corpus::Keep
});
